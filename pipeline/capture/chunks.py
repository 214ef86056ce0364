"""Chunks: rows read beside live writes, each chunk under a mark that bounds what its snapshot S cannot see.

Whatever S cannot see has an ev_id above the mark's, so the chunk's rows, at the mark's version, lose against it. The
newest mark that is valid for S serves; but never one older than `floor`, under which the rows could not repair what
had gone astray in the sinks before it was taken.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg

from pipeline.capture import rows
from pipeline.capture.marks import Mark, take_mark, valid_mark
from pipeline.capture.queue import Queue
from pipeline.domain.table import Table

# A reader that waits for a table's lock keeps this session, and with it all changes, waiting.
_LOCK_PATIENCE = "SET LOCAL lock_timeout = '50ms'"
_FEWEST = 500


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """A chunk, the mark that bounds its snapshot, and the newest tick when that snapshot had ended.

    ``seconds`` is how long the reading alone took.
    """

    chunk: rows.Chunk
    mark: Mark
    tick: int
    read_ms: int
    seconds: float


def read_chunk(
    queue: Queue,
    table: Table,
    after: tuple[str, ...] | None,
    *,
    floor: int = 0,
    merchant: str | None = None,
    limit: int | None = None,
) -> ReadChunk | None:
    """Take a mark, then read a chunk under the newest that is valid.

    None while none is (an older transaction still runs), or while the table is locked against readers: see `blocker`.
    """
    connection = queue.connection
    taken = take_mark(connection)
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute(_LOCK_PATIENCE)
            mark = valid_mark(connection)
            if mark is None or mark.ev < floor or mark.generation != taken.generation:
                return None
            began = time.monotonic()
            chunk = rows.read_chunk(connection, table, after, limit=limit, merchant=merchant)
            seconds = time.monotonic() - began
    except psycopg.errors.LockNotAvailable:
        return None
    return ReadChunk(chunk, mark, queue.newest_tick(), round(time.time() * 1000), seconds)


def blocker(queue: Queue, table: Table) -> str:
    """What `read_chunk` waits for, in words."""
    holder = rows.locked_by(queue.connection, table)
    if holder is not None:
        return f"waits for {holder} to let go of {table.name}"
    return f"waits for {rows.oldest_writer(queue.connection)} to end"


def estimate(queue: Queue, table: Table, merchant: str | None) -> int:
    """How many rows a snapshot will read of the table, about; 0 while it is locked."""
    try:
        with queue.connection.transaction():
            queue.connection.execute(_LOCK_PATIENCE)
            return rows.estimate(queue.connection, table, merchant)
    except psycopg.errors.LockNotAvailable:
        return 0


class ChunkSize:
    """Rows per chunk such that reading one takes about as long as a step may."""

    def __init__(self) -> None:
        self._seconds_per_row = 0.0

    def limit(self, seconds: float) -> int:
        """Rows that can be read in that time, going by the chunks before."""
        if not self._seconds_per_row:
            return _FEWEST
        return max(_FEWEST, min(rows.CHUNK_ROWS, int(seconds / self._seconds_per_row)))

    def took(self, seconds: float, limit: int) -> None:
        """Learn from a chunk of `limit` rows."""
        each = seconds / limit
        self._seconds_per_row = (self._seconds_per_row + each) / 2 if self._seconds_per_row else each
