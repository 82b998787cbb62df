"""One worker's write path on a real Redis, moment by moment: the product's own classes, fed by the test instead of a broker.

    Topic ──Polled──▶ Decoder ──Slice──▶ ShardWriter ──▶ Redis

A history needs no luck here: who writes when, which bytes are still in the network and what the store forgets is decided step by
step. What may not live here: histories, what is broken in them.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import redis

import headrace as hr
from headrace.errors import Gap, Stale
from headrace.oracle import naive
from headrace_schemas.batches import RawBatch
from headrace_schemas.codecs import EventCodec
from headrace_schemas.keys import ViewKeys, encode_key
from headrace_schemas.stores.lanes import LaneRecord, Watermark, fresh_token, lowest
from headrace_schemas.stores.online import OnlineReader
from headrace_schemas.stores.topology import parse_topology
from headrace_streams.claims import Claimant
from headrace_streams.dead_letters import DeadLetterBox
from headrace_streams.decoding import Decoder
from headrace_streams.flusher import Flusher
from headrace_streams.folding import ViewFolder
from headrace_streams.items import Opening, Polled, Span, Stop, Tick, TopicStart
from headrace_streams.journal import Journal
from headrace_streams.patience import Patience
from headrace_streams.writer import ShardWriter

TOPIC_ID = "T"
START_US = 1_700_000_000_000_000
_PATIENCE = Patience(answer_s=5.0, pause_s=0.01, outage_s=20.0, claim_s=0.0)
_CACHE_BYTES = 1 << 20
_COUNT = "payments_1h"

PAID = hr.Event(
    "paid", fields={"card": hr.string(), "amount": hr.float64(), "at": hr.timestamp()}, time="at", format="json",
    future_tolerance=None,
)  # fmt: skip
CARD = hr.Entity("card", keys={"card": hr.string()})


def view_of(lanes: int) -> hr.FeatureView:
    """Without the memory of repeats, which would hide that an event is counted twice."""
    features = {"payments": hr.count().over("1h"), "total": hr.sum("amount").over("1h")}
    return hr.FeatureView("spending", entity=CARD, event=PAID, features=features, lanes=lanes, dedupe=0)


class Crash(Exception):  # noqa: N818  (it is an event, not a mistake)
    """The worker is killed here."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader sees in the end, against the naive oracle.

    Args:
        lost: events that are missing from a count.
        doubled: events that are counted twice.
        wrong: values that differ, counts included.
        note: what else was not as it has to be; empty if nothing.
    """

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    note: str = ""

    @property
    def well(self) -> bool:
        """Whether everything is as one patient reader would have computed it."""
        return not (self.lost or self.doubled or self.wrong or self.note)

    def __str__(self) -> str:
        counted = f"{self.lost} lost, {self.doubled} doubled, {self.wrong} values wrong"
        return "exact" if self.well else f"{counted}; {self.note}" if self.note else counted


class Rig:
    """A topic, a store, and the workers of one view.

    Args:
        url: of the store; its keys of `namespace` are ours.
        namespace: nobody else's.
        lanes: of the view.
        partitions: of the topic.
    """

    def __init__(self, url: str, namespace: str, *, lanes: int = 2, partitions: int = 1) -> None:
        self.url, self.namespace = url, namespace
        self.view = view_of(lanes)
        self.project = hr.Project("mutations", events=(PAID,), entities=(CARD,), views=(self.view,))
        self.keys = ViewKeys(namespace, self.view)
        self.client = redis.Redis.from_url(url)
        self._codec = EventCodec(PAID, self.project.views)
        self.topic: list[list[dict[str, Any]]] = [[] for _ in range(partitions)]
        self._workers: list[Worker] = []
        self.token_of: Callable[[Rig], bytes] = lambda _: fresh_token()

    def close(self) -> None:
        """Close all connections and remove all keys."""
        for worker in self._workers:
            worker.writer.close()
        for name in self.names():
            self.client.delete(name)
        self.client.close()

    # --- the topic ---------------------------------------------------------------------------------------------------

    def produce(self, *cards: str, partition: int = 0) -> None:
        """One payment of each card."""
        records = self.topic[partition]
        for card in cards:
            at = START_US + 1_000_000 * sum(map(len, self.topic))
            records.append({"card": card, "amount": 1.0 + len(records) % 7, "at": at, "_partition": partition,
                            "_offset": len(records)})  # fmt: skip

    def polled(self, frm: Mapping[int, int], upto: Mapping[int, int]) -> Polled:
        """One poll: these ranges of the topic."""
        records = [r for p in sorted(upto) for r in self.topic[p][frm[p] : upto[p]]]
        raw = RawBatch(
            PAID.topic,
            np.array([r["_partition"] for r in records], np.int32),
            np.array([r["_offset"] for r in records], np.int64),
            np.array([r["at"] for r in records], np.int64),
            np.zeros(len(records), np.uint8),
            START_US,
            [None] * len(records),
            [self._codec.encode({name: r[name] for name in PAID.fields}) for r in records],
        )
        return Polled(raw, tuple(Span(p, frm[p], Watermark(upto[p])) for p in sorted(upto)))

    def ends(self) -> dict[int, int]:
        """The offset behind the last record of each partition."""
        return {partition: len(records) for partition, records in enumerate(self.topic)}

    # --- the store ---------------------------------------------------------------------------------------------------

    def names(self) -> list[bytes]:
        """All keys of ours."""
        return list(self.client.scan_iter(match=f"{{{self.namespace}:*", count=1000))

    def records(self) -> list[LaneRecord]:
        """The lanes' records."""
        lanes = range(self.view.lanes)
        found = [cast("dict[bytes, bytes]", self.client.hgetall(self.keys.lane_key(lane))) for lane in lanes]
        return [LaneRecord.decode(fields) for fields in found]

    def past(self) -> Callable[[], None]:
        """What the store holds now; calling it brings that back, as a fail-over to a replica that lagged does."""
        kept = {name: self.client.dump(name) for name in self.names()}

        def bring_back() -> None:
            with self.client.pipeline(transaction=True) as pipe:
                for name in self.names():
                    pipe.delete(name)
                for name, value in kept.items():
                    pipe.restore(name, 0, cast("bytes", value), replace=True)
                pipe.execute()

        return bring_back

    def cut_connections(self) -> None:
        """All but ours."""
        self.client.client_kill_filter(_type="normal", skipme=True)

    # --- workers -----------------------------------------------------------------------------------------------------

    def start(self) -> Worker:
        """A worker that takes the lanes over and begins where the store says."""
        self._workers.append(Worker(self))
        return self._workers[-1]

    def finish(self, worker: Worker | None = None) -> Worker:
        """Read everything; a worker that is refused is started again, as the supervisor does."""
        for _ in range(5):
            worker = worker or self.start()
            try:
                worker.read()
                worker.tick()
            except (Stale, Gap):
                worker = None
            else:
                return worker
        raise AssertionError("refused again and again")

    # --- what must be ------------------------------------------------------------------------------------------------

    def compare(self, note: str = "") -> Found:
        """Every feature of every card against the oracle."""
        events = [record for records in self.topic for record in records]
        cards = sorted({event["card"] for event in events})
        at_us = max(event["at"] for event in events) + 1
        read = OnlineReader(self.client, self.namespace).features(
            self.view, [encode_key((card,)) for card in cards], at_us
        )
        lost = doubled = wrong = 0
        for card, row in zip(cards, read, strict=True):
            expected = naive(self.view, events, {"card": card}, at_us)
            got = dict(zip(self.view.feature_names, row.tolist(), strict=True))
            difference = int((expected[_COUNT] or 0) - got[_COUNT])
            lost, doubled = lost + max(difference, 0), doubled + max(-difference, 0)
            wrong += sum(got[name] != expected[name] for name in got)
        return Found(lost, doubled, wrong, note)


class Worker:
    """One worker process' write path: it owns all lanes.

    Args:
        rig: where it runs.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.journal = Journal("stream", io.StringIO())
        self.folder = ViewFolder(rig.view, rig.keys, 0, 1, _CACHE_BYTES)
        claimant = Claimant(rig.token_of(rig), take_over=True)
        self.writer = ShardWriter(
            0, 1, [self.folder], parse_topology(rig.url), self.journal, _PATIENCE,
            claimant=claimant, most_dirty_bytes=_CACHE_BYTES,
        )  # fmt: skip
        box = DeadLetterBox("nowhere:1", rig.namespace, self.journal)  # nothing here is broken
        self._decoder = Decoder(rig.project, [rig.view], {PAID.topic: TOPIC_ID}, 1, box, {})
        records = rig.records()
        self.at = {p: lowest(records, TOPIC_ID, p) or 0 for p in range(len(rig.topic))}
        start = TopicStart(
            TOPIC_ID, len(rig.topic), {p: Watermark(n) for p, n in self.at.items()}, dict.fromkeys(self.at, 0)
        )
        self.writer.write([Opening(0, 1, {PAID.topic: start})])

    @property
    def flusher(self) -> Flusher:
        """What sends its commits."""
        return self.writer.flusher

    def read(self, upto: Mapping[int, int] | None = None) -> None:
        """Poll up to some offsets, by default to the end, fold, and begin to send."""
        upto = {**self.at, **(self._rig.ends() if upto is None else upto)}
        polled = self._rig.polled(self.at, upto)
        self.at = dict(upto)
        self.writer.write([piece for _, piece in self._decoder.decode(polled)])

    def tick(self) -> None:
        """Nothing more for now: everything is brought to its end."""
        self.writer.write([Tick()])

    def stop(self) -> None:
        """End cleanly."""
        self.writer.write([Stop(0)])

    def frozen_at_flush(self, act: Callable[[Worker], None]) -> Frozen:
        """Let it do something in a thread of its own, in which it freezes before the bytes of its next flush leave."""
        return Frozen(self, act)


class Frozen:
    """A worker that stands still with a flush in its hands.

    Args:
        worker: which.
        act: what it does.
    """

    def __init__(self, worker: Worker, act: Callable[[Worker], None]) -> None:
        self._awake, self._still = threading.Event(), threading.Event()
        self.error: Exception | None = None
        send = worker.flusher._send

        def send_later(indices: Sequence[int]) -> None:
            self._still.set()
            assert self._awake.wait(60)
            worker.flusher._send = send  # type: ignore[method-assign]
            send(indices)

        def run() -> None:
            try:
                act(worker)
            except Exception as error:  # noqa: BLE001  (the history looks at it)
                self.error = error

        worker.flusher._send = send_later  # type: ignore[method-assign]
        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert self._still.wait(60)

    def wake(self) -> Exception | None:
        """Let it go on; how it ended."""
        self._awake.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error


def cards(count: int) -> Iterable[str]:
    """Different ones."""
    return [f"card {n}" for n in range(count)]
