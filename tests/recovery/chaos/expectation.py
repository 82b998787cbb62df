"""What a single, patient reader of the topic would have: the expectation, made without the pipeline.

What it read (`reader.py`) has to be what producers had acknowledged or committed, and nothing that they aborted. The naive oracle is asked for values.
Canonical states and what became of each event (folded, repeat, too late) come from one fold of the kernel in the order of offsets.
What may not live here: the pipeline, faults.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

import headrace as hr
from headrace import kernel
from headrace.oracle import columns_of, naive
from headrace_schemas.batches import hash_values
from headrace_schemas.dead_letters import dead_letter_topic, decode_dead_letter, unique_dead_letters
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores import kafka, online
from headrace_schemas.stores.log import event_log
from tests.recovery.chaos.account import Account
from tests.recovery.chaos.payments import MINUTE_US
from tests.recovery.chaos.reader import Read, Row


@dataclass(slots=True)
class Comparison:
    """What was compared, and what is wrong.

    Attributes:
        events: records on the topic.
        accounts: by view, what became of each event.
        dead: dead letters, each id once.
        lost: events that are missing from states, log or dead letters.
        doubled: events that are there more than once.
        wrong: values, states and rows that differ in any other way, in words.
    """

    events: int = 0
    accounts: dict[str, Counter[str]] = field(default_factory=dict)
    values: int = 0
    states: int = 0
    rows: int = 0
    dead: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


def compare(bootstrap: str, redis_url: str, loaded: LoadedProject, read: Read, account: Account) -> Comparison:
    """Hold everything that the pipeline made against the expectation, and that against what was produced."""
    result = Comparison(events=len(read.events) + len(read.broken))
    _compare_produced(read, account, result)
    client = online.connect(redis_url)
    try:
        for view in loaded.project.views:
            _compare_view(client, loaded, view, read.events, result)
    finally:
        client.close()
    _compare_log(loaded, read.events, result)
    _compare_dead_letters(bootstrap, loaded, read, result)
    return result


def _compare_produced(read: Read, account: Account, result: Comparison) -> None:
    if result.events != account.records:
        result.wrong.append(f"{account.records} records count, {result.events} were read")
    broken = {(int(partition), int(offset)) for _, partition, offset in (id_.rsplit("/", 2) for id_ in read.broken)}
    places = broken | {(row["_partition"], row["_offset"]) for row in read.events}
    if places & account.aborted:
        result.wrong.append(f"aborted records were read: {sorted(places & account.aborted)[:3]}")


def _compare_view(
    client: Any, loaded: LoadedProject, view: hr.FeatureView, events: list[Row], result: Comparison
) -> None:
    of_key: dict[tuple[Any, ...], list[Row]] = {}
    for row in events:
        of_key.setdefault(tuple(row[name] for name in view.key_fields), []).append(row)
    keys = sorted(of_key)
    stored = online.OnlineReader(client, loaded.settings.namespace).states(view, [encode_key(key) for key in keys])
    _compare_reads(view, keys, of_key, stored, result)
    _compare_states(view, keys, of_key, stored, result)
    stem = f"{{{ViewKeys(loaded.settings.namespace, view).state_prefixes[0].decode().rpartition(':')[0][1:]}:*}}s*"
    held = sum(1 for _ in client.scan_iter(match=stem, count=1000))
    if held != len(keys):
        result.wrong.append(f"view {view.name}: {held} states for {len(keys)} entities")


def _compare_reads(
    view: hr.FeatureView, keys: Sequence[tuple[Any, ...]], of_key: Mapping[tuple[Any, ...], list[Row]],
    stored: kernel.States, result: Comparison,
) -> None:  # fmt: skip
    newest = max(row["at"] for rows in of_key.values() for row in rows)
    layout = kernel.Layout.of(view)
    for at_us in (newest + 1, newest + 7 * MINUTE_US, newest + 59 * MINUTE_US):
        got = kernel.read(layout, stored, np.full(len(keys), at_us, np.int64))
        for key, values in zip(keys, got, strict=True):
            expected = naive(view, of_key[key], dict(zip(view.entity.keys, key, strict=True)), at_us)
            for name, number in zip(view.feature_names, values.tolist(), strict=True):
                value, wanted = None if math.isnan(number) else number, expected[name]
                result.values += 1
                if value != wanted:
                    result.wrong.append(f"{view.name} {key} {name} at {at_us}: {value}, not {wanted}")
                    if name == "ever" and at_us == newest + 1:
                        missing = int(wanted or 0) - int(value or 0)
                        result.lost += max(missing, 0)
                        result.doubled += max(-missing, 0)


def _compare_states(
    view: hr.FeatureView, keys: Sequence[tuple[Any, ...]], of_key: Mapping[tuple[Any, ...], list[Row]],
    stored: kernel.States, result: Comparison,
) -> None:  # fmt: skip
    layout = kernel.Layout.of(view)
    rows = [row for key in keys for row in of_key[key]]
    batch = kernel.prepare(
        layout,
        columns_of(view, view.columns, rows),
        partition=np.array([row["_partition"] for row in rows], np.int32),
        offset=np.array([row["_offset"] for row in rows], np.int64),
        id_hash=hash_values([row["id"].encode() for row in rows]),
    )
    slot = np.repeat(np.arange(len(keys), dtype=np.int32), [len(of_key[key]) for key in keys])
    folded = kernel.update(layout, kernel.States.empty(len(keys)), batch, slot)
    names = {
        kernel.FOLDED: "folded",
        kernel.DUPLICATE: "repeats",
        kernel.TOO_LATE: "too late",
        kernel.FILTERED: "filtered",
    }
    result.accounts[view.name] = Counter(names[status] for status in folded.status.tolist())
    for i, key in enumerate(keys):
        result.states += 1
        if not stored[i]:
            result.wrong.append(f"{view.name} {key}: no state")
        elif kernel.canonical(layout, stored[i]) != kernel.canonical(layout, folded.states[i]):
            result.wrong.append(f"{view.name} {key}: another state")


def _compare_log(loaded: LoadedProject, events: list[Row], result: Comparison) -> None:
    event = loaded.project.event("paid")
    names = [*event.fields, "_partition", "_offset"]
    rows = event_log(loaded.settings, event).scan().select(names).collect().rows()
    wanted = Counter(tuple(row[name] for name in names) for row in events)
    found = Counter(rows)
    result.rows = len(rows)
    places, wanted_places = Counter(row[-2:] for row in rows), Counter(row[-2:] for row in wanted)
    result.lost += sum((wanted_places - places).values())
    result.doubled += sum((places - wanted_places).values())
    if found != wanted:
        result.wrong.append(f"log: {sum((found - wanted).values())} rows that should not be, e.g. "
                            f"{next(iter(found - wanted), None)}; {sum((wanted - found).values())} missing")  # fmt: skip


def _compare_dead_letters(bootstrap: str, loaded: LoadedProject, read: Read, result: Comparison) -> None:
    letters = []
    topic = dead_letter_topic(loaded.settings.namespace)
    if topic in kafka.topic_names(bootstrap):
        with kafka.TopicReader(bootstrap, topic, patience_s=120.0) as reader:
            for message in reader.read_to_end():
                headers: Any = message.headers()
                letters.append(decode_dead_letter(message.key(), message.value(), headers))
    found = {letter.id for letter in unique_dead_letters(letters)}
    result.dead = len(found)
    result.lost += len(read.broken - found)
    if found - read.broken:
        result.wrong.append(f"dead letters of events that are well: {sorted(found - read.broken)[:3]}")


def summary_frame(results: Mapping[str, Comparison]) -> pl.DataFrame:
    """One row per run, for people."""
    return pl.DataFrame(
        [
            {"run": name, "events": r.events, "values": r.values, "states": r.states, "log rows": r.rows,
             "dead letters": r.dead, "lost": r.lost, "doubled": r.doubled, "wrong": len(r.wrong)}
            for name, r in results.items()
        ]
    )  # fmt: skip
