"""One shard of the feature pipeline: claims its lanes, folds what arrives, flushes, and says how far it has come.

    fold at once ──▶ is the last flush acknowledged? ──no──▶ later: the next batch joins in
                                                └─────yes──▶ flush everything that is dirty

So batches grow under load, and without load an event is on its way as soon as it is folded; there is no timer. On a tick the
source has nothing more for now, and the shard brings everything to its end. What may not live here: Bytewax, Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from headrace_schemas.stores.online import progress_fields
from headrace_schemas.stores.resp import pack as pack_command
from headrace_schemas.stores.topology import Topology
from headrace_streams.claims import Claimant, claim, release
from headrace_streams.evictions import Evictions
from headrace_streams.flusher import Flusher
from headrace_streams.flushes import Flush, FlushBuilder
from headrace_streams.folding import Pending, ViewFolder
from headrace_streams.items import Opening, Slice, Stop, Tick
from headrace_streams.journal import Journal
from headrace_streams.patience import Patience
from headrace_streams.session import Session

_TELL_AGAIN_S = 2.0

Item = Opening | Slice | Tick | Stop


class ShardWriter:
    """The owner of one shard's lanes.

    Args:
        shard: which shard.
        shards: how many there are.
        folders: its views.
        topology: where Redis' primaries are.
        journal: where changes of state are reported.
        patience: how long to wait for what.
        claimant: as whom it claims them.
        most_dirty_bytes: how much may wait to be sent before folding waits too.
    """

    def __init__(
        self,
        shard: int,
        shards: int,
        folders: Sequence[ViewFolder],
        topology: Topology,
        journal: Journal,
        patience: Patience,
        *,
        claimant: Claimant,
        most_dirty_bytes: int,
    ) -> None:
        self._shard, self._shards, self._folders = shard, shards, folders
        self._journal, self._patience = journal, patience
        self._claimant, self._most_dirty_bytes = claimant, most_dirty_bytes
        self._session = Session(topology, journal, patience)
        self.flusher = Flusher(topology, journal, patience)
        self._flushes = FlushBuilder(folders, claimant.token)
        self._sending: Flush | None = None
        self._pending: list[tuple[ViewFolder, Pending]] = []
        self._opened: set[int] = set()
        self._stopped: set[int] = set()
        self._sources = 0
        self._told: list[dict[int, int]] = [{} for _ in folders]
        self._told_s = 0.0
        self._acknowledged = False  # a flush, since the heads of its lanes were last forgotten
        self._evictions = Evictions(self._session)

    def write(self, items: Sequence[Item]) -> None:
        """Take items in their order.

        Raises:
            Fenced, Gap, Stale: the lanes are not ours, or not what they were; drop everything and exit.
            ServiceUnavailable: Redis has been away for too long.
        """
        for item in items:
            if isinstance(item, Slice):
                self._begin(item)
                continue
            self._finish()
            if isinstance(item, Opening):
                self._open(item)
            else:
                self.drain()
                self._evictions.check(time.monotonic())
                if isinstance(item, Stop):
                    self._stop(item)
        self._finish()

    # --- beginning and end -------------------------------------------------------------------------------------------

    def _open(self, opening: Opening) -> None:
        if not self._opened:
            self._claim()
        self._sources = opening.sources
        self._opened.add(opening.source)
        for folder in self._folders:
            topic = opening.topics.get(folder.view.event.topic)
            if topic is not None:
                folder.open(topic)

    def _claim(self) -> None:
        places = [(view, lane) for view, folder in enumerate(self._folders) for lane in folder.positions.lanes]
        records = claim(
            self._session,
            [self._folders[view].keys.lane_key(lane) for view, lane in places],
            self._claimant,
            claim_s=self._patience.claim_s,
            name=lambda index: self._folders[places[index][0]].lane_name(places[index][1]),
        )
        for view, folder in enumerate(self._folders):
            mine = [record for (of, _), record in zip(places, records, strict=True) if of == view]
            folder.claimed(mine)
            self._flushes.claimed(view, mine)
        self._journal.note("claimed", shard=self._shard, lanes=len(places), owner=self._claimant.token.hex()[:8])

    def _stop(self, stop: Stop) -> None:
        self._stopped.add(stop.source)
        if len(self._stopped) == self._sources:
            self._send(last=True)
            self.drain()
            lanes = [folder.keys.lane_key(lane) for folder in self._folders for lane in folder.positions.lanes]
            release(self._session, lanes, self._claimant.token)
            for folder in self._folders:
                self._journal.note("folded", shard=self._shard, **folder.summary())
            self._journal.note("released", shard=self._shard, lanes=len(lanes))

    def close(self) -> None:
        """Close the connections. What was not committed is left to the next owner's replay."""
        self._session.close()
        self.flusher.close()

    # --- folding -----------------------------------------------------------------------------------------------------

    def _begin(self, piece: Slice) -> None:
        folder = self._folders[piece.view]
        if any(other is folder for other, _ in self._pending):
            self._finish()  # a view's batches build upon each other
        if self._acknowledged and not self._pending:
            self._acknowledged = False
            self._flushes.forget_heads()
        pending = folder.begin(piece, self._session.ask_at_once)
        if pending is not None:
            self._pending.append((folder, pending))

    def _finish(self) -> None:
        """Fold what was begun, and send if nothing is under way."""
        pending, self._pending = self._pending, []
        for folder, one in pending:
            replies = [self._session.answer() for _ in one.reads]
            folder.finish(one, replies, partial(self._flushes.knows, self._folders.index(folder)))
            self._pump()

    # --- flushing ----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        if self._sending is not None and (self.flusher.poll() or self._wait_if_full()):
            self._acknowledge(self._sending)
        if self._sending is None:
            self._send()

    def _wait_if_full(self) -> bool:
        """Backpressure: Redis is slower than we are, and what waits for it must not grow without bound."""
        if sum(folder.cache.dirty_bytes() for folder in self._folders) < self._most_dirty_bytes:
            return False
        return self.flusher.wait()

    def _send(self, *, last: bool = False) -> None:
        now_s = time.monotonic()
        # Before every source has spoken, a commit would make the others' partitions look like new ones.
        if not self._opened or len(self._opened) < self._sources or not (last or self._flushes.due(now_s)):
            return
        flush = self._sending = self._flushes.build(now_s, last=last)
        self.flusher.start(flush.commits, flush.data, flush.bounds, self._flushes.lanes)

    def _acknowledge(self, flush: Flush) -> None:
        self._sending = None
        self._flushes.acknowledged()
        self._acknowledged = True
        for folder in self._folders:
            folder.cache.settle()
        self._tell(flush.positions)

    def _tell(self, positions: Sequence[dict[int, int]]) -> None:
        """Write the progress hint where it changed, and now and then again: nobody waits for the answer, so it may be lost."""
        now_s = time.monotonic()
        again = now_s - self._told_s > _TELL_AGAIN_S
        if again:
            self._told_s = now_s
        for view, reached in enumerate(positions):
            if reached and (again or reached != self._told[view]):
                self._told[view] = reached
                fields = progress_fields(self._shard, self._shards, reached)
                pairs = [part for pair in fields.items() for part in pair]
                key = self._folders[view].keys.progress_key
                self.flusher.post(key, pack_command("HSET", key, *pairs))

    def drain(self) -> None:
        """Bring everything to its end: all that is folded is committed and told."""
        while True:
            if self._sending is not None:
                self.flusher.wait()
                self._acknowledge(self._sending)
            self._send()
            if self._sending is None:
                break
        if len(self._opened) == self._sources:
            self._tell([folder.positions.committed_below() for folder in self._folders])
