"""Deleting entities from the log: rows that are there already, and rows that are still to be written.

A table is clean of a deletion once it is complete up to the deletion's bounds and its rows were taken out; from then on nothing of it can
come. The bytes leave the disk when files that were replaced are deleted, seven days later. What may not live here: the store's tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace import kernel
from headrace.projects import Project
from headrace.views import FeatureView
from headrace_schemas.forgotten import Forgotten, Sieve
from headrace_schemas.keys import encode_keys
from headrace_schemas.stores.log import LogTable
from headrace_schemas.tables import OFFSET, PARTITION

_PLACES_AT_ONCE = 500
_Mask = npt.NDArray[np.bool_]


class LogForgetting:
    """What the log has to forget.

    Args:
        project: its views say which events belong to which entities.
        tables: the table of each topic.
        topic_ids: the id of each topic.
        predictions: the topic of predictions.
    """

    def __init__(
        self, project: Project, tables: Mapping[str, LogTable], topic_ids: Mapping[str, str], predictions: str
    ) -> None:
        self._views: dict[str, list[FeatureView]] = {topic: [] for topic in tables}
        for view in project.views:
            self._views[view.event.topic].append(view)
        self._entity_of = {view.name: view.entity.name for view in project.views}
        self._tables, self._topic_ids, self._predictions = tables, topic_ids, predictions
        self._sieves: dict[str, dict[str, Sieve]] = {topic: {} for topic in tables}
        self._waiting: dict[str, list[Forgotten]] = {topic: [] for topic in tables}
        self._known = 0

    def learn(self, entries: Sequence[Forgotten]) -> None:
        """The whole list, as it is now."""
        if len(entries) == self._known:
            return
        entities = {one.entity for one in entries}
        for topic in self._tables:
            topic_id = self._topic_ids[topic]
            found = {entity: Sieve.of(entries, entity, topic_id) for entity in entities}
            self._sieves[topic] = {entity: sieve for entity, sieve in found.items() if sieve is not None}
            self._waiting[topic] += [one for one in entries[self._known :] if topic_id in one.bounds]
        self._known = len(entries)

    def keep(self, topic: str, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows that may be written."""
        gone = self._gone(topic, frame) if self._sieves[topic] else None
        return frame if gone is None or not gone.any() else frame.filter(pl.Series(~gone))

    def _gone(self, topic: str, frame: pl.DataFrame) -> _Mask:
        gone = np.zeros(frame.height, np.bool_)
        if topic == self._predictions:
            return gone_predictions(frame, self._sieves[topic], self._entity_of)
        for view in self._views[topic]:
            gone |= self._gone_events(topic, view, frame)
        return gone

    def _gone_events(self, topic: str, view: FeatureView, frame: pl.DataFrame) -> _Mask:
        sieve = self._sieves[topic].get(view.entity.name)
        partition, offset = frame[PARTITION].to_numpy(), frame[OFFSET].to_numpy()
        if sieve is None or not sieve.may_hold(partition, offset):
            return np.zeros(frame.height, np.bool_)
        return sieve.forgotten(kernel.hash_keys(*encode_keys(frame, view.key_fields)), partition, offset)

    def sweep(self) -> dict[str, int]:
        """Take rows out that are there already; how many of each table."""
        dropped: dict[str, int] = {}
        for topic, waiting in self._waiting.items():
            if not waiting:
                continue
            table, topic_id = self._tables[topic], self._topic_ids[topic]
            known = table.watermark()
            dropped[topic] = (
                self._drop_predictions(table) if topic == self._predictions else self._drop_events(topic, table)
            )
            self._waiting[topic] = [
                one for one in waiting if any(known.get(p, 0) < end for p, end in one.bounds[topic_id].items())
            ]
        return {topic: rows for topic, rows in dropped.items() if rows}

    def _drop_events(self, topic: str, table: LogTable) -> int:
        rows = 0
        for view in self._views[topic]:
            sieve = self._sieves[topic].get(view.entity.name)
            if sieve is None:
                continue
            names = list(view.key_fields)
            frame = table.scan().select(*names, PARTITION, OFFSET).filter(_below(sieve)).collect()
            gone = frame.filter(pl.Series(self._gone_events(topic, view, frame)))
            for key in gone.select(names).unique().iter_rows():
                mine = gone.filter(pl.all_horizontal(pl.col(n) == v for n, v in zip(names, key, strict=True)))
                ends = mine.group_by(PARTITION).agg(pl.col(OFFSET).max())
                same = " AND ".join(
                    f"{_quoted(name)} = {_literal(value)}" for name, value in zip(names, key, strict=True)
                )
                below = " OR ".join(f"({PARTITION} = {p} AND {OFFSET} <= {last})" for p, last in ends.iter_rows())
                rows += table.delete(f"{same} AND ({below})")
        return rows

    def _drop_predictions(self, table: LogTable) -> int:
        frame = table.scan().select("lookups", PARTITION, OFFSET).collect()
        gone = frame.filter(pl.Series(gone_predictions(frame, self._sieves[self._predictions], self._entity_of)))
        places = list(gone.select(PARTITION, OFFSET).iter_rows())
        parts = [places[first : first + _PLACES_AT_ONCE] for first in range(0, len(places), _PLACES_AT_ONCE)]
        return sum(table.drop(part) for part in parts)


def rows_of_entity(
    table: LogTable, entry: Forgotten, views: Sequence[FeatureView], topic_id: str, *, predictions: bool
) -> int:
    """How many rows of a table a deletion still has to take out.

    Args:
        table: of an event, or of predictions.
        entry: the deletion.
        views: of its entity.
        topic_id: of the table's topic.
        predictions: whether it is the table of predictions.
    """
    sieve = Sieve.of([entry], entry.entity, topic_id)
    if sieve is None or table.version < 0:
        return 0
    if predictions:
        frame = table.scan().select("lookups", PARTITION, OFFSET).filter(_below(sieve)).collect()
        gone = gone_predictions(frame, {entry.entity: sieve}, {view.name: entry.entity for view in views})
        return int(gone.sum())
    found = 0
    names_of = {
        view.key_fields for view in views if set(view.key_fields) <= {column.name for column in table.schema.columns}
    }
    for names in names_of:
        frame = table.scan().select(*names, PARTITION, OFFSET).filter(_below(sieve)).collect()
        hashes = kernel.hash_keys(*encode_keys(frame, names))
        found += int(sieve.forgotten(hashes, frame[PARTITION].to_numpy(), frame[OFFSET].to_numpy()).sum())
    return found


def gone_predictions(frame: pl.DataFrame, sieves: Mapping[str, Sieve], entity_of: Mapping[str, str]) -> _Mask:
    """Which predictions looked a forgotten entity up.

    Args:
        frame: with the columns ``lookups``, ``_partition`` and ``_offset``.
        sieves: by entity.
        entity_of: the entity of each view.
    """
    partition, offset = frame[PARTITION].to_numpy(), frame[OFFSET].to_numpy()
    gone = np.zeros(frame.height, np.bool_)
    if not any(sieve.may_hold(partition, offset) for sieve in sieves.values()):
        return gone
    for row, lookups in enumerate(frame["lookups"].to_list()):
        for lookup in lookups:
            sieve = sieves.get(entity_of.get(lookup["view"], ""))
            if sieve is not None:
                key_hash = np.array([kernel.hash_bytes(lookup["key"])], np.uint64)
                gone[row] |= bool(sieve.forgotten(key_hash, partition[row : row + 1], offset[row : row + 1])[0])
    return gone


def _below(sieve: Sieve) -> pl.Expr:
    most = sieve.bounds.max(axis=0).tolist()
    return pl.any_horizontal((pl.col(PARTITION) == p) & (pl.col(OFFSET) < end) for p, end in enumerate(most))


def _quoted(name: str) -> str:
    inner = name.replace('"', '""')
    return f'"{inner}"'


def _literal(value: object) -> str:
    if isinstance(value, str):
        quoted = value.replace("'", "''")
        return f"'{quoted}'"
    return str(value).upper() if isinstance(value, bool) else str(value)
