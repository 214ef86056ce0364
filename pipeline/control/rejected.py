"""Events set aside: stored before their lane goes on, so that nothing a sink refuses is ever lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.consumer import Rejection
from pipeline.control.database import ControlDatabase
from pipeline.domain.routing import encode_key


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """One set-aside event as it is listed; its payload stays in the database."""

    consumer: str
    topic: str
    partition: int
    offset: int
    merchant: str | None
    type: str | None
    key: str | None
    version: int | None
    reason: str


def store(
    database: ControlDatabase, consumer: str, topics: tuple[str, str], rejections: Sequence[Rejection]
) -> None:
    """Set events aside; one that is already there keeps its first reason.

    `topics`: that of the consumer's changes or domain events, and that of the rows that snapshots read.
    """
    if not rejections:
        return
    rows = [
        (
            consumer,
            topics[rejection.snapshot],
            rejection.partition,
            rejection.offset,
            rejection.merchant or None,
            rejection.event.type if rejection.event else None,
            encode_key(rejection.event.key) if rejection.event else None,
            rejection.event.version if rejection.event else None,
            rejection.reason,
            rejection.payload,
        )
        for rejection in rejections
    ]
    with database.transaction() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO rejected (consumer, topic, partition, record_offset, merchant, type, key, version, reason,"
            " payload) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            rows,
        )


def counts(database: ControlDatabase) -> dict[str, int]:
    """Set-aside events per consumer."""
    with database.transaction() as connection:
        return dict(
            connection.execute("SELECT consumer, count(*) FROM rejected GROUP BY consumer").fetchall()
        )


def listed(database: ControlDatabase, consumer: str, limit: int = 1000) -> list[RejectedEvent]:
    """The newest set-aside events of a consumer."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT consumer, topic, partition, record_offset, merchant, type, key, version, reason FROM rejected"
            " WHERE consumer = %s ORDER BY set_aside_at DESC LIMIT %s",
            (consumer, limit),
        ).fetchall()
    return [RejectedEvent(*row) for row in rows]
