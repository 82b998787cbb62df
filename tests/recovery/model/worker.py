"""The model's worker: source and lanes apart, as in the product, with the product's own positions and ledger of answers.

Everything that decides is real: `start_positions` where to begin, `Positions` what is old, new or a gap, `Ledger` what an answer
means. The model adds a wire that loses, delays and repeats. What may not live here: what Redis does.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from headrace.errors import Fenced, Gap, IdentityError, Stale
from headrace_schemas.stores.lanes import LaneRecord, Watermark
from headrace_streams.commits import Commit, Ledger, Status
from headrace_streams.items import Span
from headrace_streams.positions import Positions
from headrace_streams.starts import TopicFacts, start_positions
from tests.recovery.model.store import Command, Rules, State, Store

TOPIC_ID = "t"
ROUNDS = 4  # after that many rounds without an answer the worker gives up


def lane_name(lane: int) -> str:
    return f"lane {lane}"


class Wire:
    """Between workers and the store.

    Args:
        store: where commits go.
        chance: decides what gets lost.
        trouble: how often, from 0 to 1.
    """

    def __init__(self, store: Store, chance: random.Random, trouble: float) -> None:
        self._store, self._chance, self.trouble = store, chance, trouble
        self.under_way: list[Command] = []

    def deliver(self, command: Command) -> int | list[object]:
        """Execute a command; without `one_script` a crash may come between its two halves."""
        answer = self._store.commit(command)
        if isinstance(answer, int) and not self._store.rules.one_script and self._chance.random() >= self.trouble:
            self._store.write(command)
        return answer

    def send(self, commands: Sequence[Command]) -> list[int | list[object]]:
        """The answers that come back: to all, or to those before something happened."""
        answers: list[int | list[object]] = []
        for number, command in enumerate(commands):
            if self._chance.random() >= self.trouble:
                answers.append(self.deliver(command))
                continue
            rest = commands[number : number + self._chance.randint(0, len(commands) - number)]
            if self._chance.random() < 0.5:
                self.under_way += rest  # they arrive later, if ever
            else:
                for arrived in rest:
                    self.deliver(arrived)
            break
        return answers

    def arrive(self) -> None:
        """Something that was under way arrives after all."""
        if self.under_way:
            self.deliver(self.under_way.pop(self._chance.randrange(len(self.under_way))))


class Worker:
    """One worker process, from the hint that it reads before it claims to its end.

    Args:
        store: the store.
        wire: to it.
        topic: the entity of each record, by partition and offset.
        rules: which it keeps.
        chance: decides the sizes of batches and what the cache evicts.
    """

    def __init__(
        self, store: Store, wire: Wire, topic: Sequence[Sequence[int]], rules: Rules, chance: random.Random
    ) -> None:
        self._store, self._wire, self._topic = store, wire, topic
        self._rules, self._chance = rules, chance
        self.alive, self.end = True, ""
        self._count = len(store.lanes)
        self._positions = Positions(range(self._count), lane_name)
        self._owners: list[bytes] = []
        self._heads: list[bytes] = []
        self._known: list[list[bytes]] = []  # by lane: the last acknowledged head and those under way
        self._cache: dict[int, State] = {}
        self._dirty: set[int] = set()
        self._queue: deque[tuple[int, int, int]] = deque()
        self._ledger: Ledger | None = None
        self._commands: list[Command] = []
        self._rounds = 0
        self._starts: dict[int, Watermark] = {}
        self._read: list[int] = []
        self._hint()

    def _hint(self) -> None:
        """What the source reads before anything is claimed."""
        partitions = range(len(self._topic))
        facts = TopicFacts(
            "topic", TOPIC_ID, dict.fromkeys(partitions, 0), {p: len(self._topic[p]) for p in partitions}, {}
        )
        records = [self._store.record(lane) for lane in range(self._count)]
        self._guard(lambda: self._starts.update(start_positions(facts, {"view": records})))
        if self.alive:
            self._read = [self._starts[p].next for p in partitions]

    def _guard(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (Fenced, Stale, Gap, IdentityError) as error:
            self.end = type(error).__name__
            if self._rules.cache_dropped or not self._owners:
                self.alive = False
            else:
                self._ledger = None
                self._claim()

    @property
    def finished(self) -> bool:
        done = all(at == len(records) for at, records in zip(self._read, self._topic, strict=True))
        return bool(self._owners) and done and not self._queue and self._ledger is None and not self._due()

    def step(self) -> None:
        """One thing that this process may do now."""
        if not self._owners:
            self._guard(self._open)
            return
        choice = self._chance.random()
        if choice < 0.3:
            self._poll()
        elif choice < 0.6:
            self._guard(self._fold)
        elif choice < 0.9:
            self._guard(self._flush)
        else:
            self._evict()

    def _open(self) -> None:
        records = self._claim()
        if not self._rules.claim_decides:
            marks = {(TOPIC_ID, partition): mark for partition, mark in self._starts.items()}
            records = [replace(record, watermarks=marks) for record in records]
        self._positions.open(TOPIC_ID, len(self._topic), records, self._starts, dict.fromkeys(self._starts, 0))

    def _claim(self) -> list[LaneRecord]:
        token = self._chance.randbytes(16)
        claimed = [self._store.claim(lane, token) for lane in range(self._count)]
        self._owners = [owner for _, owner in claimed]
        self._heads = [record.head for record, _ in claimed]
        self._known = [[head] for head in self._heads]
        return [record for record, _ in claimed]

    def _poll(self) -> None:
        partition = self._chance.randrange(len(self._topic))
        start = self._read[partition]
        upto = min(len(self._topic[partition]), start + self._chance.randint(1, 3))
        if upto > start:
            self._read[partition] = upto
            self._queue.append((partition, start, upto))

    def _fold(self) -> None:
        if not self._queue:
            return
        partition, start, upto = self._queue.popleft()
        spans = [Span(partition, start, Watermark(upto))]
        if self._positions.is_old(spans):
            return
        self._positions.all_new(spans)  # raises where offsets are missing
        entities = self._topic[partition][start:upto]
        lanes = np.array([entity % self._count for entity in entities], np.int32)
        rows = self._positions.new_rows(lanes, np.full(len(lanes), partition, np.int32), np.arange(start, upto))
        for row in rows.tolist() if self._rules.lane_skip else range(len(lanes)):
            self._count_once(entities[row], partition, start + row)
        self._positions.advance(spans)

    def _count_once(self, entity: int, partition: int, offset: int) -> None:
        if entity not in self._cache:
            lane = entity % self._count
            if self._rules.read_with_head and self._store.record(lane).head not in self._known[lane]:
                raise Stale(lane_name(lane))
            stored = self._store.lanes[lane].states.get(entity)
            self._cache[entity] = State() if stored is None else stored.copy()
        state = self._cache[entity]
        if self._rules.entity_skip and offset <= state.included.get(partition, -1):
            return
        state.counts[partition, offset] += 1
        state.included[partition] = max(offset, state.included.get(partition, -1))
        self._dirty.add(entity)

    def _evict(self) -> None:
        """Only what Redis is known to hold."""
        sent = {entity for command in self._commands if self._ledger for entity in command.states}
        clean = sorted(set(self._cache) - self._dirty - sent)
        if clean:
            del self._cache[self._chance.choice(clean)]

    def _due(self) -> bool:
        return bool(self._dirty) or not np.array_equal(self._positions.folded, self._positions.sent)

    def _flush(self) -> None:
        if self._ledger is None:
            if not self._due():
                return
            self._build()
        assert self._ledger is not None
        pending = self._ledger.to_send()
        if self._rounds and not self._rules.same_bytes:
            self._recompute(pending)
        self._rounds += 1
        answers = self._wire.send([self._commands[index] for index in pending])
        for index, answer in zip(pending, answers, strict=False):
            self._ledger.answer(index, answer)
        if self._ledger.done:
            self._ledger, self._commands, self._rounds = None, [], 0
            self._known = [[head] for head in self._heads]
        elif self._rounds > ROUNDS:
            self.alive, self.end = False, "gave up"

    def _build(self) -> None:
        """Every dirty state, one to a commit, so that each lane has a chain; only the last advances the watermark."""
        commits: list[Commit] = []
        self._commands = []
        for lane in range(self._count):
            parts = [
                {entity: self._cache[entity].copy()} for entity in sorted(self._dirty) if entity % self._count == lane
            ]
            for number, states in enumerate(parts or [{}]):
                told = self._positions.tell(lane) if number + 1 >= len(parts) else []
                fields = dict(zip(told[::2], told[1::2], strict=True))
                self._add(commits, Command(lane, self._owners[lane], self._heads[lane], self._id(lane), fields, states))
        self._dirty.clear()
        self._ledger = Ledger(commits, lane_name)

    def _id(self, lane: int) -> bytes:
        if self._rules.random_tokens:
            return self._chance.randbytes(16)
        return b"%d" % (int(self._heads[lane] or b"0") + 1)

    def _add(self, commits: list[Commit], command: Command) -> None:
        self._heads[command.lane] = command.id
        self._known[command.lane].append(command.id)
        self._commands.append(command)
        commits.append(Commit(command.lane, command.expected, command.id))

    def _recompute(self, pending: Sequence[int]) -> None:
        """The mistake: new ids, behind whatever head the store has now."""
        assert self._ledger is not None
        heads = {lane: self._store.record(lane).head for lane in range(self._count)}
        for index in pending:
            old = self._commands[index]
            new = replace(old, expected=heads[old.lane], id=self._id(old.lane))
            heads[old.lane] = self._heads[old.lane] = new.id
            self._known[old.lane] += [new.expected, new.id]
            self._commands[index] = new
            self._ledger.commits[index].expected, self._ledger.commits[index].id = new.expected, new.id
            self._ledger.commits[index].status = Status.WAITING
