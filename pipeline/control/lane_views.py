"""What people see of detached lanes, of requests and of their audit. Nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from pipeline.control.database import ControlDatabase
from pipeline.control.detached import DetachedLane
from pipeline.control.requests import Pause
from pipeline.ports import State, Verb


@dataclass(frozen=True, slots=True)
class Counts:
    """A consumer's detached lanes by state, and the requests that no bridge has carried out."""

    running: int = 0
    paused: int = 0
    parked: int = 0
    requests: int = 0

    @property
    def detached(self) -> int:
        """All of them."""
        return self.running + self.paused + self.parked


@dataclass(frozen=True, slots=True)
class PastRequest:
    """A request, open or ended; ``refusal`` says why nothing was changed."""

    id: int
    lane: str
    verb: Verb
    offset: int | None
    actor: str
    reason: str
    requested_at: datetime
    finished_at: datetime | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Action:
    """One line of the audit."""

    at: datetime
    actor: str
    verb: str
    subject: str
    reason: str


def counts(database: ControlDatabase) -> dict[str, Counts]:
    """Of each consumer that has any."""
    with database.transaction() as connection:
        found = connection.execute(_COUNTS).fetchall()
    return {consumer: Counts(*numbers) for consumer, *numbers in found}


def pauses(database: ControlDatabase) -> list[Pause]:
    """Consumers that a person holds, by name."""
    with database.transaction() as connection, connection.cursor(row_factory=class_row(Pause)) as cursor:
        return cursor.execute(
            "SELECT consumer, actor, reason, since FROM paused_consumers ORDER BY consumer"
        ).fetchall()


def detached(
    database: ControlDatabase,
    consumer: str,
    *,
    prefix: str = "",
    states: Sequence[State] = ("parked", "paused", "running"),
    limit: int = 1000,
) -> list[DetachedLane]:
    """Detached lanes of merchants whose id begins so: parked ones first, then paused ones; the longest in their state first."""
    with (
        database.transaction() as connection,
        connection.cursor(row_factory=class_row(DetachedLane)) as cursor,
    ):
        return cursor.execute(
            _DETACHED, {"consumer": consumer, "prefix": prefix, "states": list(states), "limit": limit}
        ).fetchall()


def past_requests(
    database: ControlDatabase, consumer: str, lanes: Sequence[str], limit: int = 10
) -> list[PastRequest]:
    """The newest requests about these lanes, open ones among them."""
    with (
        database.transaction() as connection,
        connection.cursor(row_factory=class_row(PastRequest)) as cursor,
    ):
        return cursor.execute(
            "SELECT id, lane, verb, to_offset AS offset, actor, reason, requested_at, finished_at, refusal"
            " FROM lane_requests WHERE consumer = %s AND lane = ANY(%s) ORDER BY id DESC LIMIT %s",
            (consumer, list(lanes), limit),
        ).fetchall()


def answers(database: ControlDatabase, ids: Sequence[int]) -> dict[int, str | None]:
    """Of those of these requests that have ended: why nothing was changed, None when they were carried out."""
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT id, refusal FROM lane_requests WHERE id = ANY(%s) AND finished_at IS NOT NULL",
            (list(ids),),
        )
        return dict(found.fetchall())


def past_actions(
    database: ControlDatabase, consumer: str, lanes: Sequence[str], limit: int = 10
) -> list[Action]:
    """The newest actions on these lanes, and on the whole consumer."""
    subjects = [consumer, *(f"{consumer} {lane}" for lane in lanes)]
    with database.transaction() as connection, connection.cursor(row_factory=class_row(Action)) as cursor:
        return cursor.execute(
            "SELECT at, actor, verb, subject, reason FROM actions"
            " WHERE subject = ANY(%s) AND starts_with(verb, 'lanes.') ORDER BY id DESC LIMIT %s",
            (subjects, limit),
        ).fetchall()


_COUNTS = """
SELECT consumer, sum(running)::integer, sum(paused)::integer, sum(parked)::integer, sum(requests)::integer FROM (
    SELECT consumer, count(*) FILTER (WHERE state = 'running') AS running,
           count(*) FILTER (WHERE state = 'paused') AS paused, count(*) FILTER (WHERE state = 'parked') AS parked,
           0 AS requests
      FROM detached GROUP BY consumer
 UNION ALL
    SELECT consumer, 0, 0, 0, count(*) FROM lane_requests WHERE finished_at IS NULL GROUP BY consumer
) AS counted GROUP BY consumer
"""
_DETACHED = """
SELECT topic, partition, lane, first_offset AS first, until_offset AS until, incarnation, state, reason, since
  FROM detached
 WHERE consumer = %(consumer)s AND state = ANY(%(states)s)
   AND (starts_with(lane, %(prefix)s) OR starts_with(lane, 's.' || %(prefix)s))
 ORDER BY array_position(ARRAY['parked', 'paused', 'running'], state), since, topic, partition, lane
 LIMIT %(limit)s
"""
