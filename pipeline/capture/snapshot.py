"""The snapshot: rows older than the triggers, or gone astray, published beside live writes.

A chunk is published only once the relay has finished a tick taken after the chunk's snapshot S had ended, for two
reasons. By then everything S saw has gone out. And that tick's mark was announced as progress before: it was committed
after S and flushed to disk, so a database that lacks anything S saw lacks the mark, too, and is recognised for it.
Published any earlier, rows could outlive in the sinks a crash or a failover that took them back in the source.

A chunk in hand whose table is truncated is read again: published behind the sweep that tells of it, its rows would stay.

What Kafka has acknowledged is noted in the control database, and a successor goes on from there. Its order: rows,
position; after a table's last row its sweep, then the notices it answers, then the table is done. Dying in between
repeats a step, and no step minds that.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import psycopg
import structlog

from pipeline.capture import chunks, owners, rows, sweeping
from pipeline.capture.backlog import Backlog
from pipeline.capture.chunks import ReadChunk
from pipeline.capture.envelope import Envelopes
from pipeline.capture.marks import take_mark
from pipeline.capture.outlet import Outlet
from pipeline.capture.publisher import OUTSTANDING, Publisher
from pipeline.capture.queue import Batch, Queue
from pipeline.capture.session import of_the_data
from pipeline.capture.snapshot_progress import SnapshotProgress
from pipeline.control import snapshots as requests
from pipeline.control import tables as known
from pipeline.control.database import ControlDatabase
from pipeline.control.snapshots import Snapshot, TableState
from pipeline.domain.table import Table
from pipeline.errors import TransientError
from pipeline.failpoints import passes

_LOOK_EVERY = 1.0
_MARK_EVERY = 0.5
_STEP, _STEP_BESIDE_TRAFFIC = 0.03, 0.008  # seconds a step may take
_AHEAD = 2  # chunks in hand: one is read while the other waits for its tick
_ROWS_PER_GLANCE = 32


class _SupersededError(Exception):
    """The source's generation is another than the one the snapshot began under."""


class Snapshots:
    """Carries out one source's snapshot requests, a step at a time, between the relay's batches."""

    def __init__(
        self,
        database: ControlDatabase,
        tables: Sequence[Table],
        queue: Queue,
        publisher: Publisher,
        envelopes: Envelopes,
        outlet: Outlet,
        backlog: Backlog,
        progress: SnapshotProgress,
        stopping: Callable[[], bool],
    ) -> None:
        self._database = database
        self._tables = tables
        self._queue = queue
        self._publisher = publisher
        self._envelopes = envelopes
        self._outlet = outlet
        self._backlog = backlog
        self._progress = progress
        self._stopping = stopping
        self._size = chunks.ChunkSize()
        self._seconds = _STEP
        self._until = self._look_at = self._paused_at = 0.0
        self._paused = False
        self._finished_tick = -1
        self._work: Iterator[bool] | None = None
        self._table_at_work = ""

    def step(self, last: Batch | None, *, busy: bool = False) -> bool:
        """Go on a little; `last` is the batch finished last. False when there is nothing to do for now.

        While live changes come in (`busy`) a step takes less time.
        """
        if last is not None:
            self._finished_tick = last.tick
        self._seconds = _STEP_BESIDE_TRAFFIC if busy else _STEP
        self._until = time.monotonic() + self._seconds
        try:
            if self._work is None:
                self._work = self._next_request()
            return next(self._work)
        except StopIteration:
            self._work = None
        except _SupersededError:
            self._work = None
            self._look_at = 0.0
        except TransientError as error:  # the control database: the relay goes on without
            structlog.get_logger().warning("snapshot waits for the control database", reason=str(error))
            self._work = None
        return False

    def emptied(self, table: str) -> None:
        """A table's TRUNCATE was published: what is in hand of it goes unpublished, and is read again."""
        if self._work is not None and table == self._table_at_work:
            self._work = None
            self._look_at = 0.0

    def _next_request(self) -> Iterator[bool]:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            for request in requests.open_requests(self._database, self._outlet.source)[:1]:
                yield from self._carry_out(request)
                self._look_at = 0.0

    def _carry_out(self, request: Snapshot) -> Iterator[bool]:
        """All its tables, one after the other; yields True after each step, False while it waits."""
        generation = self._queue.generation()
        chosen = [table for table in self._tables if request.table in (None, table.name)]
        refusal = "" if chosen else f"table {request.table} is not captured"
        if request.generation not in (None, generation):
            covering = requests.covering(self._database, request)
            if covering is not None:
                refusal = f"superseded by snapshot {covering}: the generation was raised to {generation}"
        if refusal:
            requests.finish(self._database, request.id, "failed", refusal)
            return
        try:
            yield from self._all(request, chosen, generation)
        except psycopg.Error as error:
            if not of_the_data(error):
                raise
            source = self._outlet.source
            reason = f"{type(error).__name__}: has a table changed? run: pipeline capture install {source}"
            structlog.get_logger().warning("snapshot failed", reason=reason)
            requests.finish(self._database, request.id, "failed", reason)
        finally:
            self._progress.end()

    def _all(self, request: Snapshot, chosen: Sequence[Table], generation: int) -> Iterator[bool]:
        estimates = {table.name: chunks.estimate(self._queue, table, request.merchant) for table in chosen}
        if not requests.begin(self._database, request, generation, estimates):
            return
        states = {state.table: state for state in requests.tables(self._database, request.id)}
        self._progress.begin(request.id, states.values())
        for table in chosen:
            if not states[table.name].done:
                yield from self._table(request, table, generation, states[table.name])
                passes("snapshot.done")
        requests.finish(self._database, request.id, "done")

    def _table(self, request: Snapshot, table: Table, generation: int, state: TableState) -> Iterator[bool]:
        self._table_at_work = table.name
        notices = self._notices(request, table, state)
        if table.parent is not None and state.first_ev is None:
            yield from self._forget_owners(table)
        floor, first_ev = self._floor(request, table, state, notices), state.first_ev
        after, final = state.position, False
        hand: deque[ReadChunk] = deque()
        while hand or not final:
            if self._hindered(request):
                yield False
                continue
            if len(hand) < _AHEAD and not final:
                read = self._read(request, table, after, first_ev or floor)
                if read is not None:
                    hand.append(read)
                    after, final = read.chunk.position, read.chunk.final
                    yield True
                    continue
                if not hand:
                    yield from self._wait_for_mark(table)
                    continue
            while self._finished_tick <= hand[0].tick:
                yield False
            yield from self._publish(table, hand[0], generation)
            done = hand.popleft()
            passes("snapshot.chunk")
            count = len(done.chunk.rows)
            requests.advance(self._database, request.id, table.name, done.mark.ev, done.chunk.position, count)
            passes("snapshot.position")
            first_ev = first_ev if first_ev is not None else done.mark.ev
            self._progress.published(table.name, count)
            yield True
        assert first_ev is not None  # a table has a chunk at least
        self._sweep(request, table, generation, first_ev)
        passes("snapshot.swept")
        rows.clear_notices(self._queue.connection, notices)
        passes("snapshot.answered")
        requests.table_done(self._database, request.id, table.name)
        self._progress.done(table.name)

    def _notices(self, request: Snapshot, table: Table, state: TableState) -> Sequence[int]:
        """The notices that every row of the table, read from now on, answers; of one that goes on, those of its start."""
        if request.merchant is not None:
            return ()
        if state.notices is None:
            found = rows.notice_ids(self._queue.connection, table)
            requests.begin_table(self._database, request.id, table.name, found)
            return found
        return state.notices

    def _forget_owners(self, table: Table) -> Iterator[bool]:
        """Before the first mark: a change of a row that takes its merchant from a silently changed parent finds it anew."""
        connection = self._queue.connection
        since = owners.begin_forgetting(connection)
        while (forgotten := owners.forget(connection, table, since)) is not None:
            if forgotten:
                yield True
            else:
                yield from self._wait_for_mark(table)

    def _floor(self, request: Snapshot, table: Table, state: TableState, notices: Sequence[int]) -> int:
        """The lowest mark for its first chunk: one taken after the request repairs whatever had gone astray before it.

        A table none of whose snapshots was ever finished, and of which nothing is noted, has nothing to repair: there the
        newest valid mark serves at once.
        """
        if state.first_ev is not None:
            return state.first_ev
        source = self._outlet.source
        if (
            request.merchant is None
            and not notices
            and not requests.ever_finished(self._database, source, table.name)
        ):
            return 0
        return take_mark(self._queue.connection).ev

    def _read(
        self, request: Snapshot, table: Table, after: tuple[str, ...] | None, floor: int
    ) -> ReadChunk | None:
        limit = self._size.limit(self._seconds)
        read = chunks.read_chunk(
            self._queue, table, after, floor=floor, merchant=request.merchant, limit=limit
        )
        if read is not None and not read.chunk.final:
            looked_at = limit if request.merchant is not None else len(read.chunk.rows)
            self._size.took(read.seconds, looked_at)
        return read

    def _hindered(self, request: Snapshot) -> bool:
        """True while it is paused, or the consumers are too far behind."""
        now = time.monotonic()
        if now >= self._paused_at:
            self._paused_at = now + _LOOK_EVERY
            current = requests.load(self._database, request.id)
            self._paused = current is not None and current.paused
        reason = "paused" if self._paused else self._backlog.hindrance()
        if reason:
            self._progress.waits(reason)
        return bool(reason)

    def _wait_for_mark(self, table: Table) -> Iterator[bool]:
        self._progress.waits(chunks.blocker(self._queue, table))
        until = time.monotonic() + _MARK_EVERY
        while time.monotonic() < until:
            yield False

    def _publish(self, table: Table, read: ReadChunk, generation: int) -> Iterator[bool]:
        """All rows of a chunk, as many per step as its time allows; ends when Kafka has acknowledged them."""
        self._require(generation, read)
        for place, row in enumerate(read.chunk.rows, start=1):
            pub_ms = round(time.time() * 1000)
            value = self._envelopes.row(table.name, row, read.mark, self._finished_tick, read.read_ms, pub_ms)
            if value is not None:
                self._publisher.send(self._outlet.snapshots, row.merchant, value)
            if self._publisher.full:
                self._publisher.settle(self._stopping, keep=OUTSTANDING // 2)
            if place % _ROWS_PER_GLANCE == 0 and time.monotonic() > self._until:
                yield True
                self._require(generation, read)
        if not self._publisher.idle:  # mostly the relay's next batch has waited for them already
            yield True
            self._publisher.settle(self._stopping)

    def _require(self, generation: int, read: ReadChunk) -> None:
        """Under another generation the rows would carry a version that later changes do not lose against."""
        if self._queue.generation() != generation or read.mark.generation != generation:
            raise _SupersededError

    def _sweep(self, request: Snapshot, table: Table, generation: int, first_ev: int) -> None:
        replaced = [one for one in known.load(self._database) if one.source == request.replaces]
        sweeps = sweeping.of_snapshot(request, table, replaced, generation, first_ev)
        for sweep in sweeps:
            sweeping.publish(self._publisher, self._outlet, sweep)
        self._publisher.settle(self._stopping)
        self._progress.swept(len(sweeps))
