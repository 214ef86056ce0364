"""Detached lanes: what of a partition its committed offset does not speak for.

A bridge writes them, under its fence; everybody else only reads. There may be hundreds of thousands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import Cursor
from psycopg.rows import TupleRow, class_row

from pipeline.control import fences, requests
from pipeline.control.database import Connection, ControlDatabase
from pipeline.control.fences import Hold, Place, held
from pipeline.ports import DetachedRow, Detachment, State, Takeover, Tenure


@dataclass(frozen=True, slots=True)
class DetachedLane:
    """A detached lane as it is listed: everything below ``first`` is accepted, from ``until`` on the live reader feeds it.

    ``since``: when it came into its state.
    """

    topic: str
    partition: int
    lane: str
    first: int
    until: int | None
    incarnation: int
    state: State
    reason: str
    since: datetime


def rows(
    database: ControlDatabase,
    consumer: str,
    *,
    lanes: Sequence[str] | None = None,
    states: Sequence[State] | None = None,
    limit: int | None = None,
) -> list[DetachedLane]:
    """A consumer's detached lanes, all or some of them, those longest in their state first."""
    with (
        database.transaction() as connection,
        connection.cursor(row_factory=class_row(DetachedLane)) as cursor,
    ):
        return cursor.execute(
            "SELECT topic, partition, lane, first_offset AS first, until_offset AS until, incarnation, state, reason, since"
            " FROM detached WHERE consumer = %(consumer)s"
            " AND (%(lanes)s::text[] IS NULL OR lane = ANY(%(lanes)s))"
            " AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))"
            " ORDER BY since, topic, partition, lane LIMIT %(limit)s",
            {"consumer": consumer, "lanes": _list(lanes), "states": _list(states), "limit": limit},
        ).fetchall()


@dataclass(frozen=True, slots=True)
class Unaccepted:
    """Detached lanes of a partition that have something left below some offset: the smallest ``first`` of them, how many.

    ``stopped``: so many of them are paused or parked.
    """

    first: int
    lanes: int
    stopped: int


def unaccepted(
    database: ControlDatabase, consumer: str, ends: Mapping[Place, int], *, lanes: Sequence[str] | None = None
) -> dict[Place, Unaccepted]:
    """What a consumer's detached lanes, all or these, have not accepted below `ends`; partitions without any are left out.

    To know that everything below is accepted, read the committed offsets before: what is detached later was accepted then,
    or held them back.
    """
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT topic, partition, min(first_offset), count(*), count(*) FILTER (WHERE state <> 'running')"
            " FROM detached JOIN unnest(%s::text[], %s::integer[], %s::bigint[]) AS place (topic, partition, at)"
            " USING (topic, partition)"
            " WHERE consumer = %s AND first_offset < place.at AND (until_offset IS NULL OR first_offset < until_offset)"
            " AND (%s::text[] IS NULL OR lane = ANY(%s)) GROUP BY topic, partition",
            (
                [topic for topic, _ in ends],
                [partition for _, partition in ends],
                list(ends.values()),
                consumer,
                _list(lanes),
                _list(lanes),
            ),
        ).fetchall()
    return {(topic, partition): Unaccepted(*counted) for topic, partition, *counted in found}


def beyond(database: ControlDatabase, consumer: str, ends: Mapping[Place, int]) -> int:
    """How many of a consumer's detached lanes stand beyond the end of their partition: it is not the one they stood in."""
    with database.transaction() as connection:
        [[count]] = connection.execute(
            "SELECT count(*) FROM detached"
            " JOIN unnest(%s::text[], %s::integer[], %s::bigint[]) AS place (topic, partition, at)"
            " USING (topic, partition) WHERE consumer = %s AND first_offset > place.at",
            (
                [topic for topic, _ in ends],
                [partition for _, partition in ends],
                list(ends.values()),
                consumer,
            ),
        ).fetchall()
    return int(count)


def _list(values: Sequence[str] | None) -> list[str] | None:
    return None if values is None else list(values)


def take_over(database: ControlDatabase, consumer: str, places: Collection[Place]) -> dict[Place, Takeover]:
    """Draw the next fence of each partition and open its detached lanes, in one transaction."""
    with database.transaction() as connection:
        drawn = fences.draw(connection, consumer, places)
        # What follows is read by later statements: the former holder's transactions have ended only now.
        [[counter]] = connection.execute(
            "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM incarnations"
        ).fetchall()
        found = _open(connection, consumer, drawn)
    # A hundred thousand rows take their time: the transaction does not stand still for it.
    lanes: dict[Place, list[DetachedRow]] = {place: [] for place in drawn}
    for topic, partition, *row in found:
        lanes[topic, partition].append(DetachedRow(*row))
    return {place: Takeover(Tenure(fence, counter), lanes[place]) for place, fence in drawn.items()}


def _open(connection: Connection, consumer: str, places: Collection[Place]) -> Cursor[TupleRow]:
    asked = (consumer, [topic for topic, _ in places], [partition for _, partition in places])
    connection.execute(
        "UPDATE detached SET until_offset = NULL WHERE until_offset IS NOT NULL"
        " AND consumer = %s AND (topic, partition) IN (SELECT * FROM unnest(%s::text[], %s::integer[]))",
        asked,
    )
    return connection.execute(
        "SELECT topic, partition, lane, first_offset, until_offset, incarnation, state, reason FROM detached"
        " WHERE consumer = %s AND (topic, partition) IN (SELECT * FROM unnest(%s::text[], %s::integer[]))",
        asked,
    )


def detach(database: ControlDatabase, hold: Hold, lanes: Sequence[Detachment]) -> list[int]:
    """Write the rows of these lanes, each once, and end their requests; returns their incarnations.

    TransientError when a request was withdrawn meanwhile: nothing is written then.
    """
    with held(database, hold) as connection:
        found = connection.execute(
            _DETACH,
            {
                "consumer": hold.consumer,
                "topic": hold.topic,
                "partition": hold.partition,
                "lanes": [one.lane for one in lanes],
                "firsts": [one.first for one in lanes],
                "states": [one.state for one in lanes],
                "reasons": [one.reason for one in lanes],
            },
        )
        written = found.fetchall()
        incarnations = {lane: incarnation for lane, incarnation, _ in written}
        requests.carried_out(connection, lanes, incarnations, {lane: was for lane, _, was in written})
    return [incarnations[one.lane] for one in lanes]


_DETACH = """
WITH former AS (
  SELECT lane, state || ': ' || reason AS said FROM detached
   WHERE (consumer, topic, partition) = (%(consumer)s, %(topic)s, %(partition)s) AND lane = ANY(%(lanes)s)
)
INSERT INTO detached AS old (consumer, topic, partition, lane, first_offset, incarnation, state, reason)
SELECT %(consumer)s, %(topic)s, %(partition)s, lane, first, nextval('incarnations'), state, reason
  FROM unnest(%(lanes)s::text[], %(firsts)s::bigint[], %(states)s::text[], %(reasons)s::text[])
       AS given (lane, first, state, reason)
ON CONFLICT (consumer, topic, partition, lane) DO UPDATE SET
  first_offset = EXCLUDED.first_offset, until_offset = NULL, incarnation = EXCLUDED.incarnation,
  state = EXCLUDED.state, reason = EXCLUDED.reason,
  since = CASE WHEN old.state = EXCLUDED.state THEN old.since ELSE EXCLUDED.since END
RETURNING lane, incarnation, (SELECT said FROM former WHERE former.lane = old.lane)
"""


def hand_over(database: ControlDatabase, hold: Hold, until: Mapping[str, int]) -> None:
    """From these offsets on the live reader feeds these lanes."""
    with held(database, hold) as connection:
        connection.execute(
            "UPDATE detached SET until_offset = given.at"
            " FROM unnest(%s::text[], %s::bigint[]) AS given (lane, at)"
            " WHERE (consumer, topic, partition) = (%s, %s, %s) AND detached.lane = given.lane",
            (list(until), list(until.values()), hold.consumer, hold.topic, hold.partition),
        )


def advance(database: ControlDatabase, hold: Hold, first: Mapping[str, int]) -> None:
    """Everything below these offsets is accepted."""
    with held(database, hold) as connection:
        connection.execute(
            "UPDATE detached SET first_offset = given.at"
            " FROM unnest(%s::text[], %s::bigint[]) AS given (lane, at)"
            " WHERE (consumer, topic, partition) = (%s, %s, %s) AND detached.lane = given.lane AND first_offset < given.at",
            (list(first), list(first.values()), hold.consumer, hold.topic, hold.partition),
        )


def close(database: ControlDatabase, hold: Hold, lanes: Sequence[str]) -> None:
    """Everything below ``until`` of these lanes is accepted: their rows go. Nothing else ever deletes one."""
    with held(database, hold) as connection:
        connection.execute(
            "DELETE FROM detached WHERE (consumer, topic, partition) = (%s, %s, %s) AND lane = ANY(%s)",
            (hold.consumer, hold.topic, hold.partition, list(lanes)),
        )
