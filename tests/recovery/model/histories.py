"""Random histories: workers come, become zombies and die, answers get lost, the store falls back; then one worker finishes.

    python -m tests.recovery.model.histories [runs]

prints for the protocol, and for the protocol without each of its rules, in how many histories an event was lost or counted
twice. What may not live here: rules.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass, fields, replace

from tests.recovery.model.store import Log, Place, Rules, Store
from tests.recovery.model.worker import Wire, Worker

PARTITIONS, RECORDS, ENTITIES, LANES, STEPS = 2, 8, 5, 2, 90


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a history did to the events: how many are missing or counted more than once, in the store and in the log."""

    lost: int
    doubled: int
    ends: Counter[str]


class _LogWriter:
    """Loads the handle, reads, and commits some time later."""

    def __init__(self, log: Log, chance: random.Random) -> None:
        self._log, self._chance = log, chance
        self._loaded: tuple[int, list[Place]] | None = None

    def step(self) -> None:
        if self._loaded is None:
            partition = self._chance.randrange(PARTITIONS)
            start = self._log.next_offset(partition)
            upto = min(RECORDS, start + self._chance.randint(1, 3))
            self._loaded = self._log.version, [(partition, offset) for offset in range(start, upto)]
        else:
            self._log.append(*self._loaded)  # accepted, or fenced: in both cases it loads again
            self._loaded = None


class History:
    """One history of one seed.

    Args:
        seed: decides everything.
        rules: of the protocol.
    """

    def __init__(self, seed: int, rules: Rules) -> None:
        self._chance, self._rules = random.Random(seed), rules
        self.topic = [[self._chance.randrange(ENTITIES) for _ in range(RECORDS)] for _ in range(PARTITIONS)]
        self.store, self.log = Store(LANES, rules), Log(rules)
        self.wire = Wire(self.store, self._chance, self._chance.choice([0.0, 0.1, 0.3]))
        self.workers: list[Worker] = []
        self.writers = [_LogWriter(self.log, self._chance) for _ in range(2)]
        self.ends: Counter[str] = Counter()
        self._falls_back = self._chance.random() < 0.5

    def run(self) -> Outcome:
        """Trouble first, then quiet until everything is folded."""
        for _ in range(STEPS):
            self._step()
        self.wire.trouble, self.wire.under_way = 0.0, []
        for _ in range(8):
            self.workers = [self._start()]
            for _ in range(1_000):
                if not self.workers[0].alive or self.workers[0].finished:
                    break
                self.workers[0].step()
            if self.workers[0].alive and self.workers[0].finished:
                break
        for _ in range(400):
            self.writers[0].step()
        return self._outcome()

    def _start(self) -> Worker:
        return Worker(self.store, self.wire, self.topic, self._rules, self._chance)

    def _step(self) -> None:
        what = self._chance.random()
        if what < 0.06 or not self.workers:
            self.workers = [*self.workers[-1:], self._start()]  # the one before it lives on as a zombie
        elif what < 0.10:
            self.workers.pop(self._chance.randrange(len(self.workers)))
        elif what < 0.13 and self._falls_back:
            self.store.fail_over(self._chance.random())
        elif what < 0.20:
            self.wire.arrive()
        elif what < 0.30:
            self.store.remember()
        elif what < 0.36:
            self._chance.choice(self.writers).step()
        else:
            worker = self._chance.choice(self.workers)
            worker.step()
            self.ends[worker.end] += not worker.alive
        self.workers = [worker for worker in self.workers if worker.alive]

    def _outcome(self) -> Outcome:
        states = {entity: state for lane in self.store.lanes for entity, state in lane.states.items()}
        logged, lost, doubled = Counter(self.log.rows), 0, 0
        for partition, entities in enumerate(self.topic):
            for offset, entity in enumerate(entities):
                folded = states[entity].counts[partition, offset] if entity in states else 0
                for times in (folded, logged[partition, offset]):
                    lost, doubled = lost + (times < 1), doubled + (times > 1)
        return Outcome(lost, doubled, self.ends)


@dataclass(frozen=True, slots=True)
class Tally:
    """Many histories under the same rules: in how many an event was lost or doubled, and the first of those."""

    runs: int
    lost: int
    doubled: int
    first: int | None
    ends: Counter[str]


def explore(rules: Rules, runs: int) -> Tally:
    """Run the histories of the seeds 0 … runs − 1."""
    lost = doubled = 0
    first: int | None = None
    ends: Counter[str] = Counter()
    for seed in range(runs):
        outcome = History(seed, rules).run()
        lost, doubled, ends = lost + (outcome.lost > 0), doubled + (outcome.doubled > 0), ends + outcome.ends
        if first is None and (outcome.lost or outcome.doubled):
            first = seed
    return Tally(runs, lost, doubled, first, ends)


def first_failure(rules: Rules, most: int) -> int | None:
    """The first seed below `most` whose history loses or doubles an event."""
    for seed in range(most):
        outcome = History(seed, rules).run()
        if outcome.lost or outcome.doubled:
            return seed
    return None


def mutations() -> dict[str, Rules]:
    """The protocol without each of its rules."""
    return {field.name: replace(Rules(), **{field.name: False}) for field in fields(Rules)}


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    print("| rules | histories | with losses | with doubles | first seed |\n|---|---|---|---|---|")
    for name, rules in {"all": Rules(), **mutations()}.items():
        found = explore(rules, runs)
        text = name if name == "all" else f"without {name}"
        print(f"| {text} | {found.runs:,} | {found.lost:,} | {found.doubled:,} | {found.first} |", flush=True)


if __name__ == "__main__":
    main()
