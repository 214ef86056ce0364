"""Snapshot requests: the CLI writes one, the relay of that source carries it out and reports here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipeline.control.database import ControlDatabase

Status = Literal["requested", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of all captured tables of a source, and how far it is."""

    id: int
    source: str
    status: Status
    rows_estimated: int
    rows_published: int
    detail: str
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def finished(self) -> bool:
        """True when nothing more will happen to it."""
        return self.status in ("done", "failed")


def request(database: ControlDatabase, source: str) -> int:
    """Ask for a snapshot; the id of the new request, or of the one that is already open."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO snapshots (source) VALUES (%s)"
            " ON CONFLICT (source) WHERE status IN ('requested', 'running') DO NOTHING",
            (source,),
        )
        row = connection.execute(
            "SELECT id FROM snapshots WHERE source = %s ORDER BY id DESC LIMIT 1", (source,)
        ).fetchone()
    assert row is not None  # inserted above, or in the way of the insert
    return int(row[0])


def load(database: ControlDatabase, id: int) -> Snapshot | None:
    """One request."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT id, source, status, rows_estimated, rows_published, detail, started_at, finished_at"
            " FROM snapshots WHERE id = %s",
            (id,),
        ).fetchone()
    return None if row is None else Snapshot(*row)


def newest(database: ControlDatabase, source: str) -> Snapshot | None:
    """The newest request of a source; None when there never was one."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT id, source, status, rows_estimated, rows_published, detail, started_at, finished_at"
            " FROM snapshots WHERE source = %s ORDER BY id DESC LIMIT 1",
            (source,),
        ).fetchone()
    return None if row is None else Snapshot(*row)


def open_request(database: ControlDatabase, source: str) -> int | None:
    """The request that waits for this source's relay, or that a killed relay left behind."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT id FROM snapshots WHERE source = %s AND status IN ('requested', 'running')", (source,)
        ).fetchone()
    return None if row is None else int(row[0])


def start(database: ControlDatabase, id: int, rows_estimated: int) -> None:
    """It begins, or begins again."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE snapshots SET status = 'running', started_at = now(), rows_estimated = %s, rows_published = 0,"
            " detail = '' WHERE id = %s",
            (rows_estimated, id),
        )


def progress(database: ControlDatabase, id: int, rows_published: int, detail: str) -> None:
    """So many rows are acknowledged by Kafka; `detail` names what it is at or waits for."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE snapshots SET rows_published = %s, detail = %s WHERE id = %s",
            (rows_published, detail, id),
        )


def finish(database: ControlDatabase, id: int, status: Literal["done", "failed"], detail: str = "") -> None:
    """It is over."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE snapshots SET status = %s, detail = %s, finished_at = now() WHERE id = %s",
            (status, detail, id),
        )
