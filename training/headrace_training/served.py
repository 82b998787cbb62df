"""Predictions that were served, as a spine: the very reads that the service did, by the offsets that it logged.

Nothing is interpreted here: keys, moments and included offsets come from the record, so that a sweep over the log up to these
offsets must give the served features again, bit for bit.

What must not live here: comparing (``auditing``), labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

import headrace as hr
from headrace import kernel
from headrace_schemas.keys import encode_keys
from headrace_training.lookups import PackedKeys, Reads
from headrace_training.programs import Vectors
from headrace_training.spines import Spine, typed_records


@dataclass(frozen=True, slots=True)
class ServedLookup:
    """One lookup of every record.

    Attributes:
        layout: the view's layout fingerprint at that time, of each record.
        keys: the entity key of each record.
        seen: the included offsets of the state that was read; none where there was no state.
        own: whether the request's own event was folded.
        ahead: whether the state held events at or after the moment of reading.
        found: whether there was a state.
    """

    layout: list[str]
    keys: PackedKeys
    seen: Vectors
    own: NDArray[np.bool_]
    ahead: NDArray[np.bool_]
    found: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Served:
    """Records of one model.

    Attributes:
        frame: rows of the prediction log.
        spine: their requests.
        lookups: in the model's order.
    """

    frame: pl.DataFrame
    spine: Spine
    lookups: tuple[ServedLookup, ...]

    def __len__(self) -> int:
        return len(self.spine)

    def reads(self, model: hr.Model, i: int) -> Reads:
        """The reads of one of the model's lookups, as they were done."""
        lookup, served = model.lookups[i], self.lookups[i]
        own = None
        if served.own.any():
            own = self.spine.own_events(lookup.view)
            if not served.own.all():
                own = replace(own, kept=own.kept * served.own)
        return Reads(served.keys, self.spine.at_us, own, served.seen)


def fits(frame: pl.DataFrame, model: hr.Model) -> NDArray[np.bool_]:
    """Which records looked up exactly what the model declares now: the same views in the same layout."""
    good = np.ones(len(frame), np.bool_)
    good &= (frame["lookups"].list.len() == len(model.lookups)).to_numpy()
    for i, lookup in enumerate(model.lookups):
        entry = frame["lookups"].list.get(i, null_on_oob=True).struct
        same = (entry.field("view") == lookup.view.name) & (entry.field("layout") == lookup.view.layout_fingerprint)
        good &= same.fill_null(value=False).to_numpy()
    return good


def served_spine(model: hr.Model, frame: pl.DataFrame) -> Served:
    """Records that fit the model, as a spine in their own order.

    Args:
        model: the model.
        frame: rows of the prediction log for which `fits` is true.
    """
    records = [json.loads(request) for request in frame["request"].to_list()]
    typed = typed_records(model.request, records)
    hashes = None
    if model.request.id is not None and typed[model.request.id].null_count() == 0:
        hashes = kernel.hash_keys(*encode_keys(typed, [model.request.id]))
    spine = Spine(typed, typed, frame["at_us"].to_numpy(), hashes, {"predictions": model.name})
    return Served(frame, spine, tuple(_lookup(frame, i) for i in range(len(model.lookups))))


def _lookup(frame: pl.DataFrame, i: int) -> ServedLookup:
    entry = frame["lookups"].list.get(i).struct
    offsets = entry.field("offsets")
    lengths = offsets.list.len()
    flat = offsets.filter(lengths > 0).explode().struct if lengths.sum() else None
    start = np.concatenate([[0], np.cumsum(lengths.to_numpy().astype(np.int64))])
    return ServedLookup(
        layout=entry.field("layout").to_list(),
        keys=pack(entry.field("key").to_list()),
        seen=Vectors(
            start,
            np.zeros(0, np.int32) if flat is None else flat.field("partition").to_numpy(),
            np.zeros(0, np.int64) if flat is None else flat.field("offset").to_numpy(),
        ),
        own=entry.field("own").to_numpy(),
        ahead=entry.field("ahead").to_numpy(),
        found=entry.field("found").to_numpy(),
    )


def pack(keys: Sequence[bytes]) -> PackedKeys:
    """Keys one behind the other."""
    offsets = np.concatenate([[0], np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys)))]).astype(np.int64)
    return PackedKeys(np.frombuffer(b"".join(keys), np.uint8), offsets)
