"""From a poll's raw records to what each shard folds: decode, judge, set rejects aside, cut by view and shard.

    Polled ──EventCodec──▶ frame ──per view──▶ keys, EventBatch ──by lane──▶ Slice for shard 0, Slice for shard 1 …

Filters and keys are evaluated here, once per view, before rows cross to another process. What may not live here: states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace import kernel
from headrace.events import Event
from headrace.layout import Layout
from headrace.projects import Project
from headrace.views import FeatureView
from headrace_schemas.codecs import EventCodec, frame_columns
from headrace_schemas.forgotten import Forgotten, Sieve
from headrace_schemas.framing import Schemas
from headrace_schemas.keys import encode_keys
from headrace_streams.cache import Packed
from headrace_streams.dead_letters import DeadLetterBox
from headrace_streams.folding import take_keys
from headrace_streams.items import Logged, Polled, Slice, Span
from headrace_streams.poison import Poison, sift, without


@dataclass(frozen=True, slots=True)
class _View:
    """What is resolved once of a view."""

    place: int
    view: FeatureView
    layout: Layout
    columns: tuple[str, ...]
    key_fields: tuple[str, ...]
    sieve: Sieve | None


def forgotten_rows(sieve: Sieve, keys: Packed, frame: pl.DataFrame) -> npt.NDArray[np.bool_] | None:
    """Which rows are forgotten events of the entities that `keys` name; None where none is."""
    partition, offset = frame["_partition"].to_numpy(), frame["_offset"].to_numpy()
    if not sieve.may_hold(partition, offset):
        return None
    gone = sieve.forgotten(kernel.hash_keys(keys.data, keys.offsets), partition, offset)
    return gone if gone.any() else None


class Decoder:
    """Decodes the batches of a project's topics.

    Args:
        project: its events and views.
        views: the views, in the order that `Slice.view` counts in.
        topic_ids: the broker's id of each topic.
        shards: how many shards share the lanes.
        box: where rejects go.
        poison: records that no reader may handle.
        schemas: the project's schema registry, if it has one.
        forgotten: the forgotten-list.
    """

    def __init__(
        self,
        project: Project,
        views: Sequence[FeatureView],
        topic_ids: Mapping[str, str],
        shards: int,
        box: DeadLetterBox,
        poison: Poison,
        schemas: Schemas | None = None,
        forgotten: Sequence[Forgotten] = (),
    ) -> None:
        self._topic_ids, self._shards, self._box = topic_ids, shards, box
        self._poison = {topic: poison.get(topic_id, {}) for topic, topic_id in topic_ids.items()}
        self._events: dict[str, Event] = {view.event.topic: view.event for view in views}
        self._codecs = {topic: EventCodec(event, project.views, schemas) for topic, event in self._events.items()}
        for codec in self._codecs.values():
            codec.warm()  # before the lanes are claimed, as the kernel
        self._views: dict[str, list[_View]] = {topic: [] for topic in self._events}
        for place, view in enumerate(views):
            topic = view.event.topic
            sieve = Sieve.of(forgotten, view.entity.name, topic_ids[topic])
            self._views[topic].append(_View(place, view, Layout.of(view), view.columns, view.key_fields, sieve))

    def decode(self, batch: Polled | Logged) -> list[tuple[int, Slice]]:
        """What each shard has to fold; every shard gets the ranges, with rows or without.

        Raises:
            ServiceUnavailable: rejects could not be set aside.
        """
        if isinstance(batch, Logged):
            topic, frame = batch.topic, without(batch.frame, self._poison[batch.topic])
        else:
            topic = batch.raw.topic
            raw, poisoned = sift(batch.raw, self._poison[topic])
            self._box.write(batch.raw, self._topic_ids[topic], poisoned)
            decoded = self._codecs[topic].decode(raw)
            self._box.write(raw, self._topic_ids[topic], decoded.rejects)
            frame = decoded.frame
        pieces: list[tuple[int, Slice]] = []
        for view in self._views[topic]:
            pieces += self._slices(view, batch.spans, frame)
        return pieces

    def _slices(self, view: _View, spans: tuple[Span, ...], frame: pl.DataFrame) -> list[tuple[int, Slice]]:
        keys = Packed(*encode_keys(frame, view.key_fields))
        if view.sieve is not None:
            gone = forgotten_rows(view.sieve, keys, frame)
            if gone is not None:
                frame = frame.filter(pl.Series(~gone))
                keys = take_keys(keys, np.flatnonzero(~gone))
        events = kernel.prepare(
            view.layout,
            frame_columns(frame, view.view.event, view.columns),
            partition=frame["_partition"].to_numpy(),
            offset=frame["_offset"].to_numpy(),
            id_hash=frame["_id_hash"].to_numpy(),
        )
        if self._shards == 1:
            return [(0, Slice(view.place, spans, keys, events))]
        lanes = (kernel.hash_keys(keys.data, keys.offsets) % np.uint64(view.view.lanes)).astype(np.int64)
        pieces = []
        for shard in range(self._shards):
            rows = np.flatnonzero(lanes % self._shards == shard)
            pieces.append((shard, Slice(view.place, spans, take_keys(keys, rows), events.take(rows))))
        return pieces
