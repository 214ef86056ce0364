"""The audit: what people and processes decided, with the reason they gave."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg.types.json import Jsonb

from pipeline.control.database import Connection, ControlDatabase


def record(
    database: ControlDatabase,
    *,
    actor: str,
    verb: str,
    subject: str,
    reason: str = "",
    details: Mapping[str, object] | None = None,
) -> None:
    """Write one action."""
    with database.transaction() as connection:
        write(connection, actor=actor, verb=verb, subject=subject, reason=reason, details=details)


def write(
    connection: Connection,
    *,
    actor: str,
    verb: str,
    subject: str,
    reason: str = "",
    details: Mapping[str, object] | None = None,
) -> None:
    """Write one action in the transaction that makes it true."""
    connection.execute(
        "INSERT INTO actions (actor, verb, subject, reason, details) VALUES (%s, %s, %s, %s, %s)",
        (actor, verb, subject, reason, Jsonb(dict(details or {}))),
    )


def recorded(database: ControlDatabase, verb: str, subject: str) -> bool:
    """True when that action was ever taken on that subject."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT 1 FROM actions WHERE verb = %s AND subject = %s LIMIT 1", (verb, subject)
        )
        return row.fetchone() is not None
