"""One at a time: whoever works on something holds its advisory lock meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.control.database import ControlDatabase


@contextmanager
def single_flight(database: ControlDatabase, what: str) -> Iterator[bool]:
    """Hold the lock of `what`, or yield False at once when somebody else does.

    `database` must not be used for anything else meanwhile: the lock lives as long as its connection.
    """
    with database.transaction() as connection:
        row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (what,)).fetchone()
        held = bool(row[0])  # type: ignore[index]  # a SELECT without FROM yields one row
    try:
        yield held
    finally:
        database.close()
