"""Parts and loads: what is staged for the warehouse, what is frozen into a batch, and how its load went.

A part's ``batch_id`` is null while it waits. Freezing sets it, committed before the first attempt, so that every
attempt of a batch loads exactly the same parts. At most one load per type is open: frozen, or failed and waiting for
a person.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from psycopg.rows import class_row

from pipeline.control.database import ControlDatabase

Status = Literal["frozen", "loaded", "failed"]


@dataclass(frozen=True, slots=True)
class Part:
    """One staged file: ``location`` is its key in the bucket, ``bytes`` its compressed size, ``marker`` its NULL."""

    id: uuid.UUID
    type: str
    shape: str
    marker: str
    location: str
    rows: int
    bytes: int
    lowest_version: int
    highest_version: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A frozen load: parts of one type, shape and marker."""

    id: uuid.UUID
    type: str
    status: Status
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Rows in all parts, before duplicates are folded."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class Due:
    """When waiting parts are loaded: the oldest is `after` seconds old, or `bytes` wait. `parts` caps a batch."""

    after: float
    bytes: int
    parts: int = 1000


@dataclass(frozen=True, slots=True)
class LoadState:
    """One type: what waits, since when (seconds), and the open load if there is one.

    ``oldest_seconds`` is the age of the oldest part that is not in the warehouse, 0 when all are.
    """

    type: str
    waiting_parts: int
    waiting_rows: int
    waiting_bytes: int
    oldest_seconds: float
    status: Status | None
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class Expired:
    """A part that nobody will read again."""

    id: uuid.UUID
    type: str
    location: str
    batch_id: uuid.UUID


def insert(database: ControlDatabase, parts: Sequence[Part]) -> None:
    """Record staged parts, all or none: from here on the warehouse has accepted them."""
    with database.transaction() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO parts (id, type, shape, marker, location, rows, bytes, lowest_version, highest_version)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [astuple(part) for part in parts],
        )


def types_due(database: ControlDatabase, due: Due) -> list[str]:
    """Types whose waiting parts are due, or that have an open load."""
    with database.transaction() as connection:
        rows = connection.execute(_TYPES_DUE, {"after": due.after, "bytes": due.bytes}).fetchall()
    return [row[0] for row in rows]


def open_batch(database: ControlDatabase, type_: str) -> Batch | None:
    """The type's frozen or failed load."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT batch_id, status FROM loads WHERE type = %s AND status <> 'loaded'", (type_,)
        ).fetchone()
        if row is None:
            return None
        with connection.cursor(row_factory=class_row(Part)) as cursor:
            cursor.execute(
                "SELECT id, type, shape, marker, location, rows, bytes, lowest_version, highest_version"
                " FROM parts WHERE batch_id = %s ORDER BY staged_at, id",
                row[:1],
            )
            return Batch(row[0], type_, row[1], tuple(cursor.fetchall()))


def freeze(database: ControlDatabase, type_: str, due: Due) -> Batch | None:
    """Freeze the oldest waiting parts into a batch when they are due; committed when this returns."""
    values = {
        "type": type_,
        "batch": uuid.uuid4(),
        "after": due.after,
        "bytes": due.bytes,
        "parts": due.parts,
    }
    with database.transaction() as connection:
        row = connection.execute(_DUE, values).fetchone()
        if row is None or not row[0]:
            return None
        connection.execute(_FREEZE, values)
        connection.execute(
            "INSERT INTO loads (batch_id, type, parts, rows)"
            " SELECT %(batch)s, %(type)s, count(*), sum(rows) FROM parts WHERE batch_id = %(batch)s",
            values,
        )
    return open_batch(database, type_)


_IS_DUE = "min(staged_at) <= clock_timestamp() - make_interval(secs => %(after)s) OR sum(bytes) >= %(bytes)s"
_DUE = f"SELECT {_IS_DUE} FROM parts WHERE type = %(type)s AND batch_id IS NULL"  # noqa: S608  constants only
_TYPES_DUE = f"""
SELECT type FROM parts WHERE batch_id IS NULL GROUP BY type HAVING {_IS_DUE}
 UNION SELECT type FROM loads WHERE status <> 'loaded' ORDER BY 1
"""  # noqa: S608  constants only
# Oldest first, those that share the oldest one's shape and marker, until the bytes are enough (always at least one).
_FREEZE = """
UPDATE parts SET batch_id = %(batch)s WHERE id IN (
    SELECT id FROM (
        SELECT waiting.id, row_number() OVER oldest AS place,
               sum(waiting.bytes) OVER oldest - waiting.bytes AS bytes_before
          FROM parts AS waiting
          JOIN (SELECT shape, marker FROM parts WHERE type = %(type)s AND batch_id IS NULL
                 ORDER BY staged_at, id LIMIT 1) AS first USING (shape, marker)
         WHERE waiting.type = %(type)s AND waiting.batch_id IS NULL
        WINDOW oldest AS (ORDER BY waiting.staged_at, waiting.id)
    ) AS candidate WHERE place <= %(parts)s AND bytes_before < %(bytes)s)
"""


def attempted(database: ControlDatabase, batch_id: uuid.UUID) -> None:
    """Count an attempt; a failed load counts as frozen again."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE loads SET attempts = attempts + 1, status = 'frozen' WHERE batch_id = %s"
            " AND status <> 'loaded'",
            (batch_id,),
        )


def troubled(database: ControlDatabase, batch_id: uuid.UUID, error: str, *, failed: bool) -> None:
    """Note why a load did not succeed; `failed` stops the type until a person retries it."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE loads SET error = %s, status = CASE WHEN %s THEN 'failed' ELSE status END"
            " WHERE batch_id = %s AND status <> 'loaded'",
            (error, failed, batch_id),
        )


def loaded(database: ControlDatabase, batch_id: uuid.UUID, applied: int, stale: int) -> None:
    """The ledger has the batch."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE loads SET status = 'loaded', applied = %s, stale = %s, error = '',"
            " finished_at = clock_timestamp() WHERE batch_id = %s",
            (applied, stale, batch_id),
        )


def expired(database: ControlDatabase, grace: float, limit: int = 1000) -> list[Expired]:
    """Parts whose load finished more than `grace` seconds ago, oldest first."""
    with database.transaction() as connection, connection.cursor(row_factory=class_row(Expired)) as cursor:
        cursor.execute(
            "SELECT parts.id, parts.type, parts.location, parts.batch_id FROM parts JOIN loads USING (batch_id) WHERE loads.status = 'loaded'"
            " AND loads.finished_at < clock_timestamp() - make_interval(secs => %s)"
            " ORDER BY loads.finished_at LIMIT %s",
            (grace, limit),
        )
        return cursor.fetchall()


def forget(database: ControlDatabase, ids: Sequence[uuid.UUID]) -> None:
    """Delete parts whose objects are gone; their load stays."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM parts WHERE id = ANY(%s)", (list(ids),))


def load_states(database: ControlDatabase) -> list[LoadState]:
    """Every type that has waiting parts or an open load, by name."""
    with database.transaction() as connection, connection.cursor(row_factory=class_row(LoadState)) as cursor:
        cursor.execute(_STATES)
        return cursor.fetchall()


_STATES = """
SELECT type, coalesce(waiting_parts, 0) AS waiting_parts, coalesce(waiting_rows, 0)::bigint AS waiting_rows,
       coalesce(waiting_bytes, 0)::bigint AS waiting_bytes,
       greatest(0, extract(epoch FROM clock_timestamp() - least(oldest_waiting, oldest_frozen)))::float8
           AS oldest_seconds,
       status, coalesce(attempts, 0) AS attempts, coalesce(error, '') AS error
  FROM (SELECT type, count(*) AS waiting_parts, sum(rows) AS waiting_rows, sum(bytes) AS waiting_bytes,
               min(staged_at) AS oldest_waiting
          FROM parts WHERE batch_id IS NULL GROUP BY type) AS waiting
  FULL JOIN (SELECT loads.type, loads.status, loads.attempts, loads.error, min(parts.staged_at) AS oldest_frozen
               FROM loads JOIN parts USING (batch_id) WHERE loads.status <> 'loaded'
              GROUP BY loads.batch_id) AS open USING (type)
 ORDER BY type
"""


def unloaded_before(database: ControlDatabase, type_: str, consumer: str, sweep: str) -> int:
    """How many parts of a type are not loaded that were staged before the consumer had passed a sweep."""
    with database.transaction() as connection:
        row = connection.execute(_UNLOADED, {"type": type_, "consumer": consumer, "sweep": sweep}).fetchone()
    return int(row[0])  # type: ignore[index]  # an aggregate yields one row


_UNLOADED = """
SELECT count(*) FROM parts LEFT JOIN loads USING (batch_id)
 WHERE parts.type = %(type)s AND loads.status IS DISTINCT FROM 'loaded'
   AND parts.moment < (SELECT max(moment) FROM sweep_passages
                        WHERE consumer = %(consumer)s AND sweep = %(sweep)s)
"""


def freshness(database: ControlDatabase) -> float:
    """Seconds since the oldest part that is not in the warehouse was staged; 0 when everything is."""
    return max((state.oldest_seconds for state in load_states(database)), default=0.0)
