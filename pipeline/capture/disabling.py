"""The emergency switch: ``cdc.disable(reason)`` in the source, callable by anybody the DBA trusts with it.

It replaces the trigger functions by empty ones, so it waits for no lock on any table and costs nothing while it is not
used. ``install.enable`` ends it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from pipeline.capture import owners
from pipeline.capture.script import Statement
from pipeline.capture.session import Connection, session
from pipeline.control import actions
from pipeline.control.database import ControlDatabase
from pipeline.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Disabled:
    """Since when, by whom and why a source is not captured."""

    at: datetime
    by: str
    reason: str

    def __str__(self) -> str:
        return f"capture is disabled since {self.at:%Y-%m-%d %H:%M:%S %Z} by {self.by}: {self.reason}"


def read(connection: Connection) -> Disabled | None:
    """None when the source is captured, or never was."""
    made = connection.execute("SELECT to_regclass('cdc.disabled') IS NOT NULL").fetchone()
    if made is None or not made[0]:
        return None
    row = connection.execute("SELECT at, by, reason FROM cdc.disabled").fetchone()
    return None if row is None else Disabled(*row)


def disable(url: str, name: str, reason: str) -> Disabled:
    """Stop capturing now; what is written from now on is lost to the sinks until a snapshot. Again: changes nothing.

    Asks nothing but the source, so it works while everything else is away; `recorded` writes the audit afterwards.
    """
    with session(url) as connection:
        row = connection.execute("SELECT to_regprocedure('cdc.disable(text)') IS NOT NULL").fetchone()
        if row is None or not row[0]:
            raise PermanentError(f"source {name}: capture is not installed, there is nothing to disable")
        connection.execute("SELECT cdc.disable(%s)", (reason,))
        since = read(connection)
        assert since is not None  # the call has just committed it
        return since


def recorded(database: ControlDatabase, name: str, actor: str, reason: str) -> None:
    """The audit of `disable`."""
    actions.record(database, actor=actor, verb="capture disable", subject=name, reason=reason)


def end(since: Disabled) -> Iterable[Statement]:
    """What `install.enable` does beside installing: no longer disabled, and every table needs a snapshot."""
    yield sql.SQL("DELETE FROM cdc.disabled")
    yield owners.forget_all()
    yield sql.SQL(
        "INSERT INTO cdc.notices (table_name, reason) SELECT table_name, {} FROM cdc.captured"
    ).format(sql.Literal(f"not captured from {since.at:%Y-%m-%d %H:%M:%S %Z} until now: {since.reason}"))
