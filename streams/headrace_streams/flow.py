"""The only place that knows Bytewax: the dataflow, and how errors and stopping travel through it.

    source (one per worker) ─▶ decode ─▶ shards (one per worker), keyed by shard

An item is a columnar batch; its keys are shards, never entities, so the engine's cost per item vanishes. Nothing is kept in
the engine's own state. Epochs are short, because a source may run ahead by an epoch. One process fails as a whole: the first
error is kept, the source ends, and whoever started the flow raises it. In a group of several processes the error goes through
the engine instead, which ends all of them within a second. What may not live here: what sources and sinks do.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.run import cli_main

from headrace_streams.errors import GroupBroken
from headrace_streams.items import Logged, Opening, Polled, Stop, Tick
from headrace_streams.pulse import Pulse

_EPOCH = timedelta(milliseconds=10)
# Processes of a group tell each other of every batch and every epoch: three idle ones took a whole core with the numbers of one
# process, and an eighth of it with these. A source still cannot run ahead by more than a tenth of a second.
_GROUP_EPOCH = timedelta(milliseconds=100)
_GROUP_PAUSE = timedelta(milliseconds=5)
_BEAT_S = 0.4
_COOLDOWN = timedelta(milliseconds=2)  # shorter pauses are left to Bytewax, which looks again after one millisecond


class Poller(Protocol):
    """A source of batches: polls without waiting, at most every `pause_ms` while there is nothing."""

    @property
    def pause_ms(self) -> int: ...
    def poll(self) -> Sequence[Polled | Logged]: ...
    def close(self) -> None: ...


class Sink(Protocol):
    """Takes one shard's items."""

    def write(self, items: Sequence[Any]) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Course:
    """How a running flow is told to stop, and what went wrong in it.

    Args:
        stop: set by whoever wants a clean stop.
        alone: this process is the whole group.
        pulse: told whenever the source or the sink has moved.
    """

    stop: threading.Event
    alone: bool
    pulse: Pulse = field(default_factory=Pulse)
    error: Exception | None = field(default=None)

    def fail(self, error: Exception) -> None:
        """Keep the first error; the flow ends.

        Raises:
            Exception: the error itself, where other processes have to end as well.
        """
        self.error = self.error or error
        if not self.alone:
            raise error


@dataclass(frozen=True, slots=True)
class Parts:
    """What one process brings into the flow.

    Args:
        worker: this process's number.
        workers: how many there are.
        opening: the first item.
        poller: the source.
        decode: turns a poll into (shard, item) pairs.
        sink: this process's shard.
    """

    worker: int
    workers: int
    opening: Opening
    poller: Poller
    decode: Callable[[Any], Iterable[tuple[int, Any]]]
    sink: Sink


def run_flow(name: str, parts: Parts, course: Course, addresses: Sequence[str] = ()) -> None:
    """Run until stopped.

    Args:
        name: of the flow.
        parts: what this process does.
        course: how to stop it.
        addresses: of all processes of the group; empty for one process.

    Raises:
        Exception: the first error of any part.
    """
    flow = Dataflow(name)
    stream = op.input("source", flow, _Source(parts, course))
    keyed = op.flat_map_batch("decode", stream, _Decode(parts, course))
    op.output("shards", keyed, _Sink(parts, course))
    gc.collect()
    gc.freeze()  # what was loaded stays: looking at all of it again would hold up events for a tenth of a second
    group = {"process_id": parts.worker, "addresses": list(addresses)} if addresses else {}
    try:
        cli_main(flow, epoch_interval=_GROUP_EPOCH if group else _EPOCH, **group)  # type: ignore[no-untyped-call]  # Bytewax's stub is bare
    except BaseException as engine:
        # In a group an error goes through the engine, which ends by panics of its own; what counts is the first cause, and in
        # the processes that have none, that another one ended.
        if course.error is None and not course.alone and not isinstance(engine, KeyboardInterrupt | SystemExit):
            raise GroupBroken(parts.worker) from engine
        if course.error is None:
            raise
        raise course.error from engine
    if course.error is not None:
        raise course.error


def part_name(shard: int) -> str:
    """Bytewax counts parts in the order of their names.

    >>> sorted(part_name(shard) for shard in (10, 9)) == [part_name(9), part_name(10)]
    True
    """
    return f"{shard:06d}"


class _Source(DynamicSource[Any]):
    def __init__(self, parts: Parts, course: Course) -> None:
        self._parts, self._course = parts, course

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSourcePartition[Any]:
        return _SourcePart(self._parts, self._course)


class _SourcePart(StatelessSourcePartition[Any]):
    """Opening, then polls; a tick after the last one, and one now and then while there is nothing."""

    def __init__(self, parts: Parts, course: Course) -> None:
        self._parts, self._course = parts, course
        self._opened = self._quiet = self._stopping = False
        self._spoke_at = 0.0
        self._pause = timedelta(milliseconds=parts.poller.pause_ms)
        self._group_pause = None if course.alone else _GROUP_PAUSE
        self._silent = False

    def next_awake(self) -> datetime | None:
        if self._group_pause is not None:
            return datetime.now(UTC) + self._group_pause
        return datetime.now(UTC) + self._pause if self._silent and self._pause > _COOLDOWN else None

    def next_batch(self) -> list[Any]:
        if self._course.error is not None or self._stopping:
            raise StopIteration
        try:
            items = self._next()
        except Exception as error:  # noqa: BLE001  (every error ends the flow and is raised by run_flow)
            self._course.fail(error)
            raise StopIteration from None
        self._course.pulse.source_moved()
        self._silent = not items
        if items:
            self._spoke_at = time.monotonic()
        return items

    def _next(self) -> list[Any]:
        if not self._opened:
            self._opened = True
            return [self._parts.opening]
        if self._course.stop.is_set():
            self._stopping = True
            return [Stop(self._parts.worker)]
        polled = self._parts.poller.poll()
        if polled:
            self._quiet = False
            return list(polled)
        if not self._quiet or time.monotonic() - self._spoke_at > _BEAT_S:
            self._quiet = True
            return [Tick()]
        return []

    def close(self) -> None:
        self._parts.poller.close()


class _Decode:
    """Batches to their shards, everything else to every shard."""

    def __init__(self, parts: Parts, course: Course) -> None:
        self._decode, self._course = parts.decode, course
        self._names = [part_name(shard) for shard in range(parts.workers)]

    def __call__(self, items: list[Any]) -> list[tuple[str, Any]]:
        keyed: list[tuple[str, Any]] = []
        if self._course.error is not None:
            return keyed
        try:
            for item in items:
                if isinstance(item, Polled | Logged):
                    keyed += [(self._names[shard], piece) for shard, piece in self._decode(item)]
                else:
                    keyed += [(name, item) for name in self._names]
        except Exception as error:  # noqa: BLE001  (every error ends the flow and is raised by run_flow)
            self._course.fail(error)
        return keyed


class _Sink(FixedPartitionedSink[Any, None]):
    def __init__(self, parts: Parts, course: Course) -> None:
        self._parts, self._course = parts, course

    def list_parts(self) -> list[str]:
        return [part_name(self._parts.worker)]

    def part_fn(self, item_key: str) -> int:
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSinkPartition[Any, None]:
        return _SinkPart(self._parts.sink, self._course)


class _SinkPart(StatefulSinkPartition[Any, None]):
    def __init__(self, sink: Sink, course: Course) -> None:
        self._sink, self._course = sink, course

    def write_batch(self, values: list[Any]) -> None:
        if self._course.error is None:
            try:
                self._sink.write(values)
                self._course.pulse.sink_moved()
            except Exception as error:  # noqa: BLE001  (every error ends the flow and is raised by run_flow)
                self._course.fail(error)

    def snapshot(self) -> None:
        return None

    def close(self) -> None:
        self._sink.close()
