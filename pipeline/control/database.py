"""Connections and migrations of the control database.

Migrations only go forward and are written so that the previous release can run beside them, unless it would lose events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from pipeline.errors import PermanentError, TransientError

Connection = psycopg.Connection[TupleRow]
_PAUSES = 3
_MIGRATION_LOCK = 0x70697065  # "pipe": two releases that start together migrate one after the other


class ControlDatabase:
    """One connection per thread, opened on first use and replaced when broken.

    One that is dark keeps whoever asks waiting: it is asked again only after three times as long.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._dark_until = 0.0
        self._local = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction; TransientError when the database does not answer (a commit may then have happened).

        PermanentError when it lacks what this release's migrations make.
        """
        try:
            connection = self._connection()
            with connection.transaction():
                yield connection
        except (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout) as error:
            self.close()
            raise TransientError(
                f"control database: {_reason(error)}", hint="see CONTROL_DATABASE_URL"
            ) from error
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise PermanentError(
                f"control database: {_reason(error)}", hint="run: pipeline migrate"
            ) from error

    def close(self) -> None:
        """Close this thread's connection."""
        connection: Connection | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            connection.close()

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = self._local.connection = self._connect()
        return connection

    def _connect(self) -> Connection:
        began = self._clock()
        if began < self._dark_until:
            raise psycopg.OperationalError(
                f"has not answered, and is asked again in {self._dark_until - began:.0f} s"
            )
        try:
            return psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=5,
                application_name="pipeline",
                # A server that has gone dark is noticed within 20 s, not when TCP gives up.
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=2,
                tcp_user_timeout=20_000,
            )
        except psycopg.OperationalError:
            now = self._clock()
            self._dark_until = now + _PAUSES * (now - began)
            raise


def _reason(error: psycopg.Error) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def migrate(database: ControlDatabase) -> list[str]:
    """Apply the migrations that are missing, in order, in one transaction; returns their names."""
    with database.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, applied_at timestamptz DEFAULT now())"
        )
        applied = {row[0] for row in connection.execute("SELECT name FROM migrations")}
        missing = [name for name in _migrations() if name not in applied]
        for name in missing:
            connection.execute(_text(name))
            connection.execute("INSERT INTO migrations (name) VALUES (%s)", (name,))
    return missing


def require_migrated(database: ControlDatabase) -> None:
    """PermanentError unless every migration of this release is applied."""
    with database.transaction() as connection:
        row = connection.execute("SELECT to_regclass('migrations') IS NOT NULL").fetchone()
        names: set[Any] = set()
        if row is not None and row[0]:
            names = {name for (name,) in connection.execute("SELECT name FROM migrations")}
    missing = [name for name in _migrations() if name not in names]
    if missing:
        raise PermanentError(f"control database lacks {', '.join(missing)}", hint="run: pipeline migrate")


def _migrations() -> list[str]:
    folder = files("pipeline.control") / "migrations"
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))


def _text(name: str) -> bytes:
    return (files("pipeline.control") / "migrations" / name).read_bytes()
