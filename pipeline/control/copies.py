"""Copies of detached lanes' records in object storage: which object holds what. They go with the lane's row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from psycopg.rows import class_row

from pipeline.control.database import ControlDatabase
from pipeline.control.fences import Hold, Place, held


@dataclass(frozen=True, slots=True)
class Copy:
    """All records of a lane from ``first`` up to before ``end`` lie in the object; None: there are none."""

    lane: str
    first: int
    end: int
    object: str | None


def standing(
    database: ControlDatabase, consumer: str, places: Collection[Place]
) -> dict[Place, dict[str, int]]:
    """The detached lanes of each partition that has any, and the first offset of each that is not accepted."""
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT topic, partition, lane, first_offset FROM detached"
            " WHERE consumer = %s AND (topic, partition) IN (SELECT * FROM unnest(%s::text[], %s::integer[]))",
            (consumer, [topic for topic, _ in places], [partition for _, partition in places]),
        ).fetchall()
    lanes: dict[Place, dict[str, int]] = {}
    for topic, partition, lane, first in found:
        lanes.setdefault((topic, partition), {})[lane] = first
    return lanes


def listed(database: ControlDatabase, consumer: str, place: Place, lanes: Collection[str]) -> list[Copy]:
    """What is copied of these lanes, by offset."""
    with database.transaction() as connection, connection.cursor(row_factory=class_row(Copy)) as cursor:
        return cursor.execute(
            "SELECT lane, first_offset AS first, end_offset AS end, object FROM copies"
            " WHERE (consumer, topic, partition) = (%s, %s, %s) AND lane = ANY(%s) ORDER BY first_offset, lane",
            (consumer, *place, list(lanes)),
        ).fetchall()


def announce(database: ControlDatabase, hold: Hold, key: str) -> None:
    """An object is about to be put."""
    with held(database, hold) as connection:
        connection.execute(
            "INSERT INTO copy_objects (key, consumer, topic, partition) VALUES (%s, %s, %s, %s)",
            (key, hold.consumer, hold.topic, hold.partition),
        )


def write(database: ControlDatabase, hold: Hold, copies: Sequence[Copy]) -> None:
    """These are copied; what goes on where another copy ends, and is empty, only lengthens that one.

    Lanes that are no longer detached are left out.
    """
    place = {"consumer": hold.consumer, "topic": hold.topic, "partition": hold.partition}
    with held(database, hold) as connection:
        for one in copies:
            given = {**place, "lane": one.lane, "first": one.first, "end": one.end, "object": one.object}
            if one.object is None and connection.execute(_LENGTHEN, given).rowcount:
                continue
            connection.execute(_INSERT, given)


_LENGTHEN = """
UPDATE copies SET end_offset = %(end)s
 WHERE (consumer, topic, partition, lane) = (%(consumer)s, %(topic)s, %(partition)s, %(lane)s) AND end_offset = %(first)s
"""
_INSERT = """
WITH living AS (
  SELECT FROM detached
   WHERE (consumer, topic, partition, lane) = (%(consumer)s, %(topic)s, %(partition)s, %(lane)s) FOR KEY SHARE
)
INSERT INTO copies (consumer, topic, partition, lane, first_offset, end_offset, object)
SELECT %(consumer)s, %(topic)s, %(partition)s, %(lane)s, %(first)s, %(end)s, %(object)s FROM living
ON CONFLICT (consumer, topic, partition, lane, first_offset) DO UPDATE
   SET end_offset = EXCLUDED.end_offset, object = EXCLUDED.object WHERE copies.end_offset <= EXCLUDED.end_offset
"""


def explain(database: ControlDatabase, hold: Hold, reasons: Mapping[str, str]) -> int:
    """Give detached lanes these reasons; how many did not have theirs yet."""
    with held(database, hold) as connection:
        return connection.execute(
            "UPDATE detached SET reason = given.reason FROM unnest(%s::text[], %s::text[]) AS given (lane, reason)"
            " WHERE (consumer, topic, partition) = (%s, %s, %s) AND detached.lane = given.lane"
            " AND detached.reason <> given.reason",
            (list(reasons), list(reasons.values()), hold.consumer, hold.topic, hold.partition),
        ).rowcount


def unused(database: ControlDatabase, consumer: str, places: Collection[Place], age: timedelta) -> list[str]:
    """Objects of these partitions that no lane has anything in, `age` after they were announced."""
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT key FROM copy_objects"
            " WHERE consumer = %s AND (topic, partition) IN (SELECT * FROM unnest(%s::text[], %s::integer[]))"
            " AND created_at < clock_timestamp() - %s"
            " AND NOT EXISTS (SELECT FROM copies WHERE copies.object = copy_objects.key) ORDER BY key LIMIT 1000",
            (consumer, [topic for topic, _ in places], [partition for _, partition in places], age),
        ).fetchall()
    return [key for (key,) in found]


def forget(database: ControlDatabase, keys: Sequence[str]) -> None:
    """These objects are deleted."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM copy_objects WHERE key = ANY(%s)", (list(keys),))
