"""The plan of a model: everything about answering it that no request and no bundle changes.

A plan is made once, at the start; what it holds are arrays, tuples and byte strings that the hot route only uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import headrace as hr
from headrace import kernel
from headrace.assembly import lookup_columns
from headrace_schemas.keys import encode_key
from headrace_serving.reading import Float64, ViewPlan
from headrace_serving.requests import RequestSchema, Rows


@dataclass(frozen=True, slots=True)
class LookupPlan:
    """One lookup of a model.

    Attributes:
        read: how its view is read.
        alias: its name in the model.
        columns: which of the view's features it has.
        names: these features as the model calls them.
        folds: whether the request's own event is folded in before reading.
    """

    read: ViewPlan
    alias: str
    columns: slice | npt.NDArray[np.intp]
    names: tuple[str, ...]
    folds: bool

    def own_event(self, rows: Rows, id_hash: npt.NDArray[np.uint64]) -> kernel.EventBatch | None:
        """The request's own event of each row, as it is folded in; None where it is not."""
        if not self.folds:
            return None
        # Places are not looked at: the request's own event comes last among events of its time.
        none = np.zeros(rows.count, dtype=np.int64)
        return kernel.prepare(
            self.read.layout, rows.columns, partition=none.astype(np.int32), offset=none, id_hash=id_hash
        )


@dataclass(frozen=True, slots=True)
class Looked:
    """What the lookups of some rows gave.

    Attributes:
        features: for each lookup its features, one row per row.
        newest_us: [lookups, rows]: the newest event time of each state, `kernel.NEVER` where there is none.
    """

    features: list[Float64]
    newest_us: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model of the project.

    Attributes:
        model: the definition.
        schema: what a row of its requests must hold.
        lookups: its lookups, in the model's order.
        reader: reads the states of all of them at once.
        transforms: names of its on-demand transforms, in the order of their columns.
        id_field: the request field that identifies the event, where requests are folded; else None.
        defaults_when_lost: answer with defaults when the store does not answer.
    """

    model: hr.Model
    schema: RequestSchema
    lookups: tuple[LookupPlan, ...]
    reader: kernel.JointReader
    transforms: tuple[str, ...]
    id_field: str | None
    defaults_when_lost: bool

    @classmethod
    def of(cls, namespace: str, model: hr.Model) -> ModelPlan:
        """The plan of a model in a namespace."""
        lookups = tuple(
            LookupPlan(
                read=ViewPlan.of(namespace, lookup.view, lookup.key_fields),
                alias=lookup.alias,
                columns=lookup_columns(model, index),
                names=tuple(lookup.visible_name(feature) for feature in lookup.features),
                folds=model.folded[index],
            )
            for index, lookup in enumerate(model.lookups)
        )
        return cls(
            model=model,
            schema=RequestSchema(model),
            lookups=lookups,
            reader=kernel.JointReader([lookup.read.layout for lookup in lookups]),
            transforms=tuple(each.name for each in model.transforms),
            id_field=model.request.id if any(model.folded) else None,
            defaults_when_lost=model.on_unavailable == "defaults",
        )

    def entity_keys(self, rows: Rows) -> list[list[bytes]]:
        """For each lookup the entity key of each row.

        Raises:
            ContractError: a key is too long for the store.
        """
        return [lookup.read.entity_keys(rows.records) for lookup in self.lookups]

    def locate(self, keys: Sequence[Sequence[bytes]]) -> list[bytes]:
        """The Redis keys of the first lookup's entities, then of the second's, and so on."""
        hashes = kernel.hash_list([key for own in keys for key in own])
        names: list[bytes] = []
        for lookup, own in zip(self.lookups, keys, strict=True):
            names += lookup.read.keys.locate_all(own, hashes[len(names) : len(names) + len(own)])
        return names

    def look_up(self, states: kernel.States, rows: Rows) -> Looked:
        """The features of states that were read from where `locate` says."""
        id_hash = self._id_hashes(rows)
        own = () if id_hash is None else [lookup.own_event(rows, id_hash) for lookup in self.lookups]
        read = self.reader.read(states, rows.at_us, own)
        return Looked(
            [
                read.features[:, columns][:, lookup.columns]
                for lookup, columns in zip(self.lookups, self.reader.columns, strict=True)
            ],
            read.newest_us,
        )

    def _id_hashes(self, rows: Rows) -> npt.NDArray[np.uint64] | None:
        """The hash of each row's event id, as the stream computes it; None where nothing is folded."""
        if self.id_field is None:
            return None
        keys = [encode_key([value]) for value in rows.columns[self.id_field].tolist()]
        return np.array(kernel.hash_list(keys), dtype=np.uint64)
