"""The snapshot: rows older than the triggers, or gone astray, read in chunks beside live writes.

Each chunk is read under a mark: whatever the chunk's snapshot S cannot see has an ev_id above the mark's, so the
chunk's rows, at the mark's version, lose against it. They are published only once the relay has finished a tick taken
after S ended: by then everything S saw has gone out. A killed snapshot begins again; nothing of it is remembered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import structlog

from pipeline.capture import rows
from pipeline.capture.envelope import Envelopes
from pipeline.capture.marks import Mark, take_mark, valid_mark
from pipeline.capture.publisher import OUTSTANDING, Publisher
from pipeline.capture.queue import Batch, Queue
from pipeline.control import snapshots as requests
from pipeline.control.database import ControlDatabase
from pipeline.domain.table import Table
from pipeline.errors import TransientError
from pipeline.failpoints import passes

_LOOK_EVERY = 1.0
_MARK_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """A chunk, the mark that bounds its snapshot, and a tick taken after that snapshot ended."""

    chunk: rows.Chunk
    mark: Mark
    tick: int
    read_ms: int


def read_chunk(queue: Queue, table: Table, after: tuple[str, ...] | None) -> ReadChunk | None:
    """Take a mark, then read a chunk under it; None while no mark is valid: an older transaction still runs."""
    connection = queue.connection
    take_mark(connection)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        mark = valid_mark(connection)
        if mark is None:
            return None
        chunk = rows.read_chunk(connection, table, after)
    return ReadChunk(chunk, mark, queue.tick(), round(time.time() * 1000))


class Snapshots:
    """Carries out one source's snapshot requests, a step at a time, between the relay's batches."""

    def __init__(
        self,
        database: ControlDatabase,
        source: str,
        tables: list[Table],
        queue: Queue,
        publisher: Publisher,
        envelopes: Envelopes,
        topic: str,
        stopping: Callable[[], bool],
    ) -> None:
        self._database = database
        self._topic = topic
        self._source = source
        self._tables = tables
        self._queue = queue
        self._publisher = publisher
        self._envelopes = envelopes
        self._stopping = stopping
        self._look_at = 0.0
        self._finished_tick = -1
        self._work: Iterator[bool] | None = None
        self.rows_published = 0

    def step(self, last: Batch | None) -> bool:
        """Go on a little; `last` is the batch finished last. False when there is nothing to do for now."""
        if last is not None:
            self._finished_tick = last.tick
        try:
            if self._work is None:
                self._work = self._next_request()
            return next(self._work)
        except StopIteration:
            self._work = None
        except (
            TransientError
        ) as error:  # the control database: the relay goes on without, the snapshot starts over
            structlog.get_logger().warning("snapshot waits for the control database", reason=str(error))
            self._work = None
        return False

    def _next_request(self) -> Iterator[bool]:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            for request in requests.open_requests(self._database, self._source)[:1]:
                yield from self._carry_out(request.id)

    def _carry_out(self, request: int) -> Iterator[bool]:
        """All tables, one after the other; yields True after each chunk, False while it waits."""
        connection = self._queue.connection
        try:
            estimates = {table.name: rows.estimate(connection, table) for table in self._tables}
            requests.begin(self._database, request, self._queue.generation(), estimates)
            for table in self._tables:
                answered = rows.notice_ids(connection, table)
                yield from self._table(request, table)
                rows.clear_notices(connection, answered)
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            reason = (
                f"{type(error).__name__}: has a table changed? run: pipeline capture install {self._source}"
            )
            structlog.get_logger().warning("snapshot failed", reason=reason)
            requests.finish(self._database, request, "failed", reason)
            return
        requests.finish(self._database, request, "done")

    def _table(self, request: int, table: Table) -> Iterator[bool]:
        after: tuple[str, ...] | None = None
        while True:
            read = read_chunk(self._queue, table, after)
            if read is None:
                yield from self._wait_for_mark(request)
                continue
            while self._finished_tick < read.tick:
                yield False
            if self._queue.generation() != read.mark.generation:
                continue
            self._publish(table, read)
            passes("snapshot.chunk")
            count = len(read.chunk.rows)
            requests.advance(self._database, request, table.name, read.mark.ev, read.chunk.position, count)
            yield True
            if read.chunk.final:
                requests.table_done(self._database, request, table.name)
                return
            after = read.chunk.position

    def _wait_for_mark(self, request: int) -> Iterator[bool]:
        blocker = rows.oldest_writer(self._queue.connection)
        requests.note(self._database, request, f"waits for {blocker} to end")
        until = time.monotonic() + _MARK_EVERY
        while time.monotonic() < until:
            yield False

    def _publish(self, table: Table, read: ReadChunk) -> None:
        for row in read.chunk.rows:
            pub_ms = round(time.time() * 1000)
            value = self._envelopes.row(table.name, row, read.mark, read.tick, read.read_ms, pub_ms)
            if value is not None:
                self._publisher.send(self._topic, row.merchant, value)
            if self._publisher.full:
                self._publisher.settle(self._stopping, keep=OUTSTANDING // 2)
        self._publisher.settle(self._stopping)
        self.rows_published += len(read.chunk.rows)
