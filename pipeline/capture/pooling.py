"""Refuses a pooler that gives every transaction another session: there, no lock is ever ours, and settings are others'.

PgBouncer in session mode is fine. It shows a client a process number of its own, so a pooler is noticed; its mode is
told by whether a second client gets the very server session that the first one has just used.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg.rows import TupleRow

from pipeline.errors import PermanentError

_ATTEMPTS = 5
_Connection = psycopg.Connection[TupleRow]


def require_own_session(connection: _Connection, another: Callable[[], _Connection]) -> None:
    """PermanentError when `connection` does not keep one server session to itself; `another` opens a second one.

    Nothing may have been set on `connection` yet: it would be set for whoever gets that server session next.
    """
    first = _server_process(connection)
    if first == connection.info.backend_pid:
        return
    for _ in range(_ATTEMPTS):
        if _shared(connection, another, first):
            raise PermanentError(
                "the database is reached through a pooler in transaction or statement mode, where no lock is ever ours",
                hint="set pool_mode = session for it, or connect to PostgreSQL directly",
            )


def _shared(connection: _Connection, another: Callable[[], _Connection], first: int) -> bool:
    """Pools hand out the server session that came back last: in transaction mode the one `connection` has just used."""
    other = another()
    try:
        with other.transaction():
            return _server_process(other) == first or _server_process(connection) != first
    except (psycopg.errors.ProtocolViolation, psycopg.OperationalError):
        return True  # a pooler in statement mode ends whoever opens a transaction
    finally:
        other.close()


def _server_process(connection: _Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None  # a SELECT without FROM yields one row
    return int(row[0])
