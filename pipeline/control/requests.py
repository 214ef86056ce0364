"""What people ask of lanes: a row each, carried out by the bridge that holds the partition, kept for a week.

A whole consumer is held by a row of its own, which its bridges look at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pipeline.control import actions
from pipeline.control.database import Connection, ControlDatabase
from pipeline.control.fences import Hold, Place, held
from pipeline.errors import TransientError
from pipeline.ports import Detachment, Request, Verb

_KEPT = timedelta(days=7)
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks of a lane. ``offset``: where to rewind to, or the first record not to be skipped.

    ``expected``: where the lane stood when they asked to skip. ``details``: what they were shown, for the audit.
    """

    consumer: str
    topic: str
    partition: int
    lane: str
    verb: Verb
    actor: str
    reason: str
    offset: int | None = None
    expected: int | None = None
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.offset is None and self.verb in ("skip", "rewind"):
            raise ValueError(f"{self.verb} needs an offset")
        if self.expected is None and self.verb == "skip":
            raise ValueError("skip needs to know where the lane stood")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request: not ``finished``, or carried out, or refused for a reason."""

    id: int
    finished: bool
    refusal: str | None


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request that no bridge has carried out yet."""

    id: int
    topic: str
    partition: int
    lane: str
    verb: Verb
    offset: int | None
    actor: str
    reason: str
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class Pause:
    """Who holds a whole consumer, since when."""

    consumer: str
    actor: str
    reason: str
    since: datetime


def ask(database: ControlDatabase, asked: Sequence[Asked]) -> list[int]:
    """Write these requests, all or none; their ids. Requests that ended more than a week ago are forgotten."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM lane_requests WHERE finished_at < clock_timestamp() - %s", (_KEPT,))
        return [_ask(connection, one) for one in asked]


def _ask(connection: Connection, asked: Asked) -> int:
    row = connection.execute(
        "INSERT INTO lane_requests"
        " (consumer, topic, partition, lane, verb, to_offset, expected_first, actor, reason, details)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (
            asked.consumer,
            asked.topic,
            asked.partition,
            asked.lane,
            asked.verb,
            asked.offset,
            asked.expected,
            asked.actor,
            asked.reason,
            Jsonb(dict(asked.details)),
        ),
    ).fetchone()
    assert row is not None  # INSERT ... RETURNING yields the row
    return int(row[0])


def outcome(database: ControlDatabase, id: int) -> Outcome | None:
    """What became of a request; None when there is none, or it ended more than a week ago."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT id, finished_at IS NOT NULL, refusal FROM lane_requests WHERE id = %s", (id,)
        ).fetchone()
    return None if row is None else Outcome(*row)


def open_requests(database: ControlDatabase, consumer: str) -> list[OpenRequest]:
    """A consumer's requests that wait for a bridge, oldest first."""
    with (
        database.transaction() as connection,
        connection.cursor(row_factory=class_row(OpenRequest)) as cursor,
    ):
        return cursor.execute(
            "SELECT id, topic, partition, lane, verb, to_offset AS offset, actor, reason, requested_at"
            " FROM lane_requests WHERE consumer = %s AND finished_at IS NULL ORDER BY id",
            (consumer,),
        ).fetchall()


def counted(database: ControlDatabase, consumer: str, *, refused: bool) -> dict[str, int]:
    """How many requests of each verb were carried out within the last week, or refused."""
    with database.transaction() as connection:
        return dict(
            connection.execute(
                "SELECT verb, count(*) FROM lane_requests WHERE consumer = %s AND finished_at IS NOT NULL"
                " AND (refusal IS NOT NULL) = %s GROUP BY verb ORDER BY verb",
                (consumer, refused),
            ).fetchall()
        )


def withdraw(database: ControlDatabase, id: int, *, actor: str) -> bool:
    """End a request that no bridge has carried out; False when there is no such one any more."""
    with database.transaction() as connection:
        return (
            connection.execute(
                "UPDATE lane_requests SET finished_at = clock_timestamp(), refusal = 'withdrawn by ' || %s"
                " WHERE id = %s AND finished_at IS NULL",
                (actor, id),
            ).rowcount
            == 1
        )


def pause_consumer(database: ControlDatabase, consumer: str, *, actor: str, reason: str) -> bool:
    """Hold a whole consumer: its bridges read nothing. False when it is held already."""
    with database.transaction() as connection:
        paused = connection.execute(
            "INSERT INTO paused_consumers (consumer, actor, reason) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (consumer, actor, reason),
        ).rowcount
        if paused:
            actions.write(connection, actor=actor, verb="lanes.pause", subject=consumer, reason=reason)
    return bool(paused)


def resume_consumer(database: ControlDatabase, consumer: str, *, actor: str, reason: str) -> bool:
    """Let a whole consumer go on; False when nobody holds it."""
    with database.transaction() as connection:
        resumed = connection.execute("DELETE FROM paused_consumers WHERE consumer = %s", (consumer,)).rowcount
        if resumed:
            actions.write(connection, actor=actor, verb="lanes.resume", subject=consumer, reason=reason)
    return bool(resumed)


def paused(database: ControlDatabase, consumer: str) -> Pause | None:
    """Who holds the whole consumer; None when nobody does."""
    with database.transaction() as connection, connection.cursor(row_factory=class_row(Pause)) as cursor:
        return cursor.execute(
            "SELECT consumer, actor, reason, since FROM paused_consumers WHERE consumer = %s", (consumer,)
        ).fetchone()


# For bridges


def waiting(
    database: ControlDatabase, consumer: str, places: Collection[Place]
) -> list[tuple[Place, Request]]:
    """What is asked of lanes in these partitions, the oldest thousand, in their order."""
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT id, topic, partition, lane, verb, reason, to_offset, expected_first FROM lane_requests"
            " JOIN unnest(%s::text[], %s::integer[]) AS place (topic, partition) USING (topic, partition)"
            " WHERE consumer = %s AND finished_at IS NULL ORDER BY id LIMIT %s",
            ([topic for topic, _ in places], [partition for _, partition in places], consumer, _AT_ONCE),
        ).fetchall()
    return [
        ((topic, partition), Request(id, partition, lane, verb, reason, offset, expected))
        for id, topic, partition, lane, verb, reason, offset, expected in found
    ]


def refuse(database: ControlDatabase, hold: Hold, id: int, refusal: str) -> None:
    """A request ends without a change; one that has ended stays as it is."""
    with held(database, hold) as connection:
        connection.execute(
            "UPDATE lane_requests SET finished_at = clock_timestamp(), refusal = %s"
            " WHERE id = %s AND finished_at IS NULL",
            (refusal, id),
        )


def carried_out(
    connection: Connection,
    lanes: Sequence[Detachment],
    incarnations: Mapping[str, int],
    was: Mapping[str, str | None],
) -> None:
    """The requests of these lanes end and enter the audit; TransientError when one of them has ended before.

    `was`: the state that each was detached in, and why.
    """
    asked = {one.request: one for one in lanes if one.request is not None}
    if not asked:
        return
    ended = connection.execute(
        _CARRIED_OUT,
        (
            list(asked),
            list(asked),
            [one.first for one in asked.values()],
            [incarnations[one.lane] for one in asked.values()],
            [was[one.lane] for one in asked.values()],
        ),
    ).rowcount
    if ended < len(asked):
        raise TransientError("a request was withdrawn while it was carried out")


_CARRIED_OUT = """
WITH ended AS (
  UPDATE lane_requests SET finished_at = clock_timestamp() WHERE id = ANY(%s) AND finished_at IS NULL
  RETURNING id, consumer, lane, verb, actor, reason, details
)
INSERT INTO actions (actor, verb, subject, reason, details)
SELECT actor, 'lanes.' || verb, consumer || ' ' || lane, reason,
       details || jsonb_strip_nulls(jsonb_build_object('request', id, 'first', first, 'incarnation', incarnation, 'was', was))
  FROM ended JOIN unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[]) AS given (id, first, incarnation, was)
 USING (id)
 ORDER BY id
"""
