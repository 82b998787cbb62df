"""The plan of a model: everything about answering it that no request and no bundle changes.

A plan is made once, at the start; what it holds are arrays, tuples and byte strings that the hot route only uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import headrace as hr
from headrace import kernel
from headrace.assembly import lookup_columns
from headrace_schemas.keys import encode_key
from headrace_serving.reading import Float64, State, ViewPlan
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

    def features(self, states: list[State], rows: Rows, id_hash: npt.NDArray[np.uint64] | None) -> Float64:
        """The lookup's features, one row per row of the request.

        Args:
            states: the state of each row's entity.
            rows: the validated rows.
            id_hash: the hash of each row's event id, where the model folds requests.
        """
        own = None
        if self.folds and id_hash is not None:
            own = kernel.prepare(
                self.read.layout,
                rows.columns,
                # Not looked at: the request's own event comes last among events of its time.
                partition=np.zeros(rows.count, dtype=np.int32),
                offset=np.zeros(rows.count, dtype=np.int64),
                id_hash=id_hash,
            )
        return self.read.read(states, rows.at_us, own)[:, self.columns]


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model of the project.

    Attributes:
        model: the definition.
        schema: what a row of its requests must hold.
        lookups: its lookups, in the model's order.
        transforms: names of its on-demand transforms, in the order of their columns.
        id_field: the request field that identifies the event, where requests are folded; else None.
        defaults_when_lost: answer with defaults when the store does not answer.
    """

    model: hr.Model
    schema: RequestSchema
    lookups: tuple[LookupPlan, ...]
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
            transforms=tuple(each.name for each in model.transforms),
            id_field=model.request.id if any(model.folded) else None,
            defaults_when_lost=model.on_unavailable == "defaults",
        )

    def id_hashes(self, rows: Rows) -> npt.NDArray[np.uint64] | None:
        """The hash of each row's event id, as the stream computes it; None where nothing is folded."""
        if self.id_field is None:
            return None
        hashes = [kernel.hash_bytes(encode_key([value])) for value in rows.columns[self.id_field].tolist()]
        return np.array(hashes, dtype=np.uint64)
