"""Snapshot requests: whoever needs rows again writes one, the relay of that source carries them out in their order.

How far each table is lies here as well, so a killed relay's successor goes on where Kafka has acknowledged the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from psycopg import sql

from pipeline.control.database import ControlDatabase

T = TypeVar("T")
Status = Literal["requested", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of a source, of one of its tables or of all, of one merchant's rows or of all, and how far it is.

    ``replaces`` is the source that the merchant has moved away from. ``generation`` is the source's when it began.
    """

    id: int
    source: str
    table: str | None
    merchant: str | None
    replaces: str | None
    status: Status
    paused: bool
    generation: int | None
    rows_estimated: int
    rows_published: int
    detail: str
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def finished(self) -> bool:
        """True when nothing more will happen to it."""
        return self.status in ("done", "failed")


_SELECT = sql.SQL(
    "SELECT id, source, table_name, merchant, replaces, status, paused, generation, rows_estimated, rows_published,"
    " detail, requested_at, started_at, finished_at FROM snapshots WHERE "
)


@dataclass(frozen=True, slots=True)
class TableState:
    """How far a snapshot is in one table: rows up to the key ``position`` are acknowledged by Kafka.

    ``first_ev`` is the ev_id of its first chunk's mark, None before that chunk is acknowledged. ``notices`` are those it
    will have answered, None before it was begun.
    """

    table: str
    first_ev: int | None
    position: tuple[str, ...] | None
    rows_estimated: int
    rows_published: int
    done: bool
    notices: tuple[int, ...] | None = None


def request(
    database: ControlDatabase,
    source: str,
    *,
    table: str | None = None,
    merchant: str | None = None,
    replaces: str | None = None,
) -> int:
    """Ask for a snapshot; the id of the new request, or of an identical one that has not begun.

    One that has begun may have passed the rows this one is for, so it is never joined.
    """
    asked = (source, table, merchant, replaces)
    with database.transaction() as connection:
        connection.execute(_ALONE, (source,))
        row = (
            connection.execute(
                "SELECT id FROM snapshots WHERE (source, table_name, merchant, replaces)"
                " IS NOT DISTINCT FROM (%s, %s, %s, %s) AND status = 'requested' ORDER BY id LIMIT 1",
                asked,
            ).fetchone()
            or connection.execute(_REQUEST, {"source": source, "asked": list(asked)}).fetchone()
        )
    assert row is not None  # found, or inserted
    return int(row[0])


# A request made while its source's snapshots are paused is paused with them.
_REQUEST = """
INSERT INTO snapshots (source, table_name, merchant, replaces, paused)
SELECT asked[1], asked[2], asked[3], asked[4],
       EXISTS (SELECT FROM snapshots WHERE source = %(source)s AND paused AND status IN ('requested', 'running'))
FROM (SELECT %(asked)s::text[] AS asked) given RETURNING id
"""


def load(database: ControlDatabase, id: int) -> Snapshot | None:
    """One request."""
    return next(iter(_read(database, sql.SQL("id = %s"), id)), None)


def newest(database: ControlDatabase, source: str) -> Snapshot | None:
    """The newest request of a source; None when there never was one."""
    return next(iter(_read(database, sql.SQL("source = %s ORDER BY id DESC LIMIT 1"), source)), None)


def open_requests(database: ControlDatabase, source: str) -> list[Snapshot]:
    """Those that wait for this source's relay, are in work, or were left behind by a killed one; the oldest first.

    While a merchant moves away, those of it and of all merchants wait: they would leave it out, and sweep what nobody else
    has brought yet.
    """
    return _read(database, sql.SQL("source = %s AND ") + _MAY_WORK + sql.SQL(" ORDER BY id"), source)


_MAY_WORK = sql.SQL(
    "(status = 'running' OR status = 'requested' AND NOT EXISTS (SELECT FROM placements p"
    " WHERE p.source = snapshots.source AND (snapshots.merchant IS NULL OR snapshots.merchant = p.merchant)"
    " AND p.finished_at IS NULL AND p.step <> 'checked'))"
)


def at_work(database: ControlDatabase, source: str, merchant: str) -> list[int]:
    """Snapshots that have begun and tell of the merchant; whichever begins after this call knows of its move."""
    with database.transaction() as connection:
        connection.execute(_ALONE, (source,))
        rows = connection.execute(
            "SELECT id FROM snapshots WHERE source = %s AND status = 'running' AND (merchant IS NULL OR merchant = %s)"
            " ORDER BY id",
            (source, merchant),
        ).fetchall()
    return [id for (id,) in rows]


_ALONE = "SELECT pg_advisory_xact_lock(hashtext('snapshots'), hashtext(%s))"


def _read(database: ControlDatabase, which: sql.Composable, value: object) -> list[Snapshot]:
    with database.transaction() as connection:
        rows = connection.execute(_SELECT + which, (value,))
        return [Snapshot(*row) for row in rows]


def tables(database: ControlDatabase, id: int) -> list[TableState]:
    """How far a snapshot is, table by table; empty before it has begun."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT table_name, first_ev, position, rows_estimated, rows_published, done, notices"
            " FROM snapshot_tables"
            " WHERE snapshot = %s ORDER BY table_name",
            (id,),
        ).fetchall()
    return [
        TableState(name, ev, _tuple(position), estimated, published, done, _tuple(notices))
        for name, ev, position, estimated, published, done, notices in rows
    ]


def _tuple(values: Iterable[T] | None) -> tuple[T, ...] | None:
    return None if values is None else tuple(values)


def covering(database: ControlDatabase, snapshot: Snapshot) -> int | None:
    """Another open request that will bring every row of this one; None when there is none."""
    for other in open_requests(database, snapshot.source):
        if (
            other.id != snapshot.id
            and other.table in (None, snapshot.table)
            and other.merchant in (None, snapshot.merchant)
            and snapshot.replaces in (None, other.replaces)
        ):
            return other.id
    return None


def ever_finished(database: ControlDatabase, source: str, table: str) -> bool:
    """True when all rows of a table were ever read to the end: the sinks may hold rows of it that no event told of."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM snapshot_tables t JOIN snapshots s ON s.id = t.snapshot"
            " WHERE s.source = %s AND t.table_name = %s AND t.done AND s.merchant IS NULL)",
            (source, table),
        ).fetchone()
    return row is not None and bool(row[0])


def begin(
    database: ControlDatabase, request: Snapshot, generation: int, estimates: Mapping[str, int]
) -> bool:
    """It begins under this generation; `estimates`: rows per table. False when a merchant began to move away meanwhile.

    What it has reached under the same generation stays; under another one it begins again from the first row.
    """
    id = request.id
    with database.transaction() as connection:
        connection.execute(_ALONE, (request.source,))
        may = sql.SQL("SELECT FROM snapshots WHERE id = %s AND ") + _MAY_WORK
        if connection.execute(may, (id,)).fetchone() is None:
            return False
        connection.execute(
            "DELETE FROM snapshot_tables t USING snapshots s WHERE t.snapshot = s.id AND s.id = %s"
            " AND s.generation IS DISTINCT FROM %s",
            (id, generation),
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO snapshot_tables (snapshot, table_name, rows_estimated) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [(id, table, rows) for table, rows in estimates.items()],
            )
        connection.execute(
            "UPDATE snapshots SET status = 'running', started_at = coalesce(started_at, now()), generation = %s,"
            " detail = '', rows_published ="
            " (SELECT coalesce(sum(rows_published), 0) FROM snapshot_tables WHERE snapshot = %s) WHERE id = %s",
            (generation, id, id),
        )
        connection.execute(_ESTIMATED, (id, id))
    return True


_ESTIMATED = """
UPDATE snapshots SET rows_estimated =
  (SELECT coalesce(sum(greatest(rows_estimated, rows_published)), 0) FROM snapshot_tables WHERE snapshot = %s)
WHERE id = %s
"""


def begin_table(database: ControlDatabase, id: int, table: str, notices: Sequence[int]) -> None:
    """The first chunk of a table comes next: it will have answered these notices."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE snapshot_tables SET notices = %s WHERE snapshot = %s AND table_name = %s",
            (list(notices), id, table),
        )


def advance(
    database: ControlDatabase, id: int, table: str, first_ev: int, position: tuple[str, ...] | None, rows: int
) -> None:
    """Kafka has acknowledged `rows` more rows of a table, up to `position`."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE snapshot_tables SET first_ev = coalesce(first_ev, %s), position = coalesce(%s, position),"
            " rows_published = rows_published + %s WHERE snapshot = %s AND table_name = %s",
            (first_ev, list(position) if position else None, rows, id, table),
        )
        connection.execute(
            "UPDATE snapshots SET rows_published = rows_published + %s, detail = %s WHERE id = %s",
            (rows, table, id),
        )


def table_done(database: ControlDatabase, id: int, table: str) -> None:
    """All rows of a table and its sweep are acknowledged; what was estimated of it is known now."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE snapshot_tables SET done = true, rows_estimated = rows_published"
            " WHERE snapshot = %s AND table_name = %s",
            (id, table),
        )
        connection.execute(_ESTIMATED, (id, id))


def note(database: ControlDatabase, id: int, detail: str) -> None:
    """What it waits for, in words."""
    with database.transaction() as connection:
        connection.execute("UPDATE snapshots SET detail = %s WHERE id = %s", (detail, id))


def finish(database: ControlDatabase, id: int, status: Literal["done", "failed"], detail: str = "") -> None:
    """It is over."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE snapshots SET status = %s, detail = %s, finished_at = now() WHERE id = %s",
            (status, detail, id),
        )


def pause(database: ControlDatabase, source: str, *, paused: bool) -> list[int]:
    """Pause a source's open snapshots, or let them go on; their ids."""
    with database.transaction() as connection:
        connection.execute(_ALONE, (source,))
        rows = connection.execute(
            "UPDATE snapshots SET paused = %s WHERE source = %s AND status IN ('requested', 'running') RETURNING id",
            (paused, source),
        ).fetchall()
    return sorted(id for (id,) in rows)
