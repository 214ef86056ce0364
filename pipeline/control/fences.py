"""Fences: who takes a partition over draws its next one; from then on whoever holds a lower one can write nothing about it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.control.database import Connection, ControlDatabase
from pipeline.errors import FencedError

PATIENCE = "5s"
"""Whoever stands still for so long within a transaction that holds a fence loses it: the next one waits for it."""
Place = tuple[str, int]
"""A topic and the number of one of its partitions."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A consumer's partition in the hands of the bridge that drew this fence."""

    consumer: str
    topic: str
    partition: int
    fence: int


def draw(connection: Connection, consumer: str, places: Collection[Place]) -> dict[Place, int]:
    """The next fence of each partition. What its former holder had begun has ended before this returns."""
    connection.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, true)", (PATIENCE,))
    rows = connection.execute(
        "INSERT INTO fences (consumer, topic, partition, fence, with_detached)"
        " SELECT %s, topic, partition, 1, true FROM unnest(%s::text[], %s::integer[]) AS place (topic, partition)"
        " ORDER BY topic, partition"  # all in the same order, so that no two wait for each other
        " ON CONFLICT (consumer, topic, partition) DO UPDATE SET fence = fences.fence + 1"
        " RETURNING topic, partition, fence",
        (consumer, [topic for topic, _ in places], [partition for _, partition in places]),
    )
    return {(topic, partition): fence for topic, partition, fence in rows}


@contextmanager
def held(database: ControlDatabase, hold: Hold) -> Iterator[Connection]:
    """One transaction by the holder of a partition: nobody draws its next fence before the end; FencedError if one has."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT fence, set_config('idle_in_transaction_session_timeout', %s, true) FROM fences"
            " WHERE (consumer, topic, partition) = (%s, %s, %s) FOR SHARE",
            (PATIENCE, hold.consumer, hold.topic, hold.partition),
        ).fetchone()
        if row is None or row[0] != hold.fence:
            raise FencedError(
                f"partition {hold.partition} of {hold.topic} is no longer held under fence {hold.fence}"
            )
        yield connection
