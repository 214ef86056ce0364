"""Events set aside: stored before their lane goes on, so that nothing a sink refuses is ever lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.consumer import Rejection, SweepOrder
from pipeline.control.database import Connection, ControlDatabase
from pipeline.domain.reason import storable
from pipeline.domain.routing import encode_key


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """One set-aside event as it is listed; its payload stays in the database.

    ``stale``: a sweep has removed the row it tells of, so it matters no more.
    """

    consumer: str
    topic: str
    partition: int
    offset: int
    merchant: str | None
    type: str | None
    key: str | None
    version: int | None
    reason: str
    stale: bool = False


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
            rejection.event.src if rejection.event else None,
            storable(rejection.reason),
            rejection.payload,
        )
        for rejection in rejections
    ]
    with database.transaction() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO rejected (consumer, topic, partition, record_offset, merchant, type, key, version, source,"
            " reason, payload) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            rows,
        )


def counts(database: ControlDatabase) -> dict[str, int]:
    """Set-aside events per consumer, without stale ones."""
    with database.transaction() as connection:
        return dict(
            connection.execute(
                "SELECT consumer, count(*) FROM rejected WHERE stale_at IS NULL GROUP BY consumer"
            ).fetchall()
        )


def listed(
    database: ControlDatabase, consumer: str, limit: int = 1000, *, stale: bool = False
) -> list[RejectedEvent]:
    """The newest set-aside events of a consumer; `stale` brings those that matter no more, too."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT consumer, topic, partition, record_offset, merchant, type, key, version, reason,"
            " stale_at IS NOT NULL FROM rejected WHERE consumer = %s AND (stale_at IS NULL OR %s)"
            " ORDER BY set_aside_at DESC LIMIT %s",
            (consumer, stale, limit),
        ).fetchall()
    return [RejectedEvent(*row) for row in rows]


def newer(
    connection: Connection, consumer: str, source: str, type_: str, version: int
) -> frozenset[tuple[str, str]]:
    """(merchant, encoded key) of set-aside events of a source's type at `version` or above."""
    rows = connection.execute(
        "SELECT DISTINCT merchant, key FROM rejected WHERE consumer = %s AND source = %s AND type = %s"
        " AND version >= %s AND stale_at IS NULL AND merchant IS NOT NULL AND key IS NOT NULL",
        (consumer, source, type_, version),
    )
    return frozenset(rows.fetchall())


def outdate(connection: Connection, order: SweepOrder) -> None:
    """What was set aside below a sweep that its consumer has carried out matters no more."""
    connection.execute(
        "UPDATE rejected SET stale_at = clock_timestamp() WHERE consumer = %s AND source = %s AND type = %s"
        " AND version < %s AND (%s::text IS NULL OR merchant = %s) AND stale_at IS NULL",
        (order.consumer, order.source, order.type, order.version, order.merchant, order.merchant),
    )
