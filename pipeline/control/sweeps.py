"""Sweeps on their way: which partitions a consumer has passed, which sweeps it may run, which it has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Cursor
from psycopg.rows import TupleRow, class_row

from pipeline.consumer import SweepOrder
from pipeline.control import rejected
from pipeline.control.database import Connection, ControlDatabase
from pipeline.control.fences import Hold, held
from pipeline.domain.sweep import Sweep, Why
from pipeline.settings import Topic


@dataclass(frozen=True, slots=True)
class Passage:
    """A consumer's sink has accepted everything before the record of `sweep` at `offset` of a partition."""

    sweep: Sweep
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A sweep that a consumer has not run: it has passed so many of the `partitions` it reads; it is `seconds` old."""

    consumer: str
    source: str
    type: str
    merchant: str | None
    why: Why
    passed: int
    partitions: int
    seconds: float


def passed(database: ControlDatabase, consumer: str, passages: Sequence[Passage]) -> None:
    """Record passages, and the sweeps themselves where no other bridge has; waits for them end. Again: changes nothing."""
    with database.transaction() as connection, connection.cursor() as cursor:
        _store(cursor, passages)
        cursor.executemany(
            "INSERT INTO sweep_passages (consumer, sweep, topic, partition, record_offset)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [_place(consumer, one) for one in passages],
        )
        cursor.executemany(
            "DELETE FROM sweep_waits WHERE (consumer, topic, partition, record_offset) = (%s, %s, %s, %s)",
            [(consumer, one.topic, one.partition, one.offset) for one in passages],
        )


def wait(database: ControlDatabase, hold: Hold, passages: Sequence[Passage]) -> None:
    """The offsets of a partition are committed past these sweeps, which its detached lanes have not reached.

    One that was passed by then does not wait: a transaction without an answer may arrive behind the passage.
    """
    with held(database, hold) as connection, connection.cursor() as cursor:
        _store(cursor, passages)
        cursor.executemany(
            _WAIT,
            [_place(hold.consumer, one) for one in passages],
        )


def waits(database: ControlDatabase, consumer: str, topic: str, partition: int) -> list[tuple[int, Sweep]]:
    """Sweeps that wait for detached lanes of a partition, each with the offset of its record, by offset."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT record_offset, id, source, table_name, type, merchant, version::text, why"
            " FROM sweep_waits JOIN sweeps ON sweeps.id = sweep_waits.sweep"
            " WHERE (consumer, topic, partition) = (%s, %s, %s) ORDER BY record_offset",
            (consumer, topic, partition),
        ).fetchall()
    return [(offset, Sweep(1, "sweep", *sweep)) for offset, *sweep in rows]


def _store(cursor: Cursor[TupleRow], passages: Sequence[Passage]) -> None:
    # Writes a row that is there, too: what `expire` is deleting at this moment is inserted anew.
    cursor.executemany(
        "INSERT INTO sweeps (id, source, table_name, type, merchant, version, why)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET why = sweeps.why",
        [_row(passage.sweep) for passage in sorted(passages, key=lambda one: one.sweep.id)],
    )


def _place(consumer: str, passage: Passage) -> tuple[str, str, str, int, int]:
    return consumer, passage.sweep.id, passage.topic, passage.partition, passage.offset


def _row(sweep: Sweep) -> tuple[str | int | None, ...]:
    return sweep.id, sweep.src, sweep.table, sweep.type, sweep.merchant, sweep.version, sweep.why


def due(database: ControlDatabase, consumer: str, topics: Sequence[Topic]) -> list[SweepOrder]:
    """Sweeps that the consumer has passed in every partition it reads and has not run, oldest first.

    `topics` are what it reads, the topic of changes first. One that gets no rows of snapshots is told of TRUNCATE alone:
    it lacks the versions that rows have by a snapshot, and would lose those that live on unchanged.
    """
    with database.transaction() as connection:
        return _due(connection, consumer, topics)


def _due(connection: Connection, consumer: str, topics: Sequence[Topic]) -> list[SweepOrder]:
    found = connection.execute(_DUE, _places(consumer, topics)).fetchall()
    return [_order(connection, consumer, *row) for row in found]


def _order(
    connection: Connection,
    consumer: str,
    id_: str,
    source: str,
    table: str,
    type_: str,
    merchant: str | None,
    version: int,
    why: Why,
    offsets: Sequence[int],
) -> SweepOrder:
    # A truncated table has lost every state below the version, whatever became of the events after it.
    spared = (
        frozenset[tuple[str, str]]()
        if why == "truncate"
        else rejected.newer(connection, consumer, source, type_, version)
    )
    return SweepOrder(consumer, id_, source, table, type_, merchant, version, why, tuple(offsets), spared)


def finished(database: ControlDatabase, order: SweepOrder, rows: int) -> None:
    """The consumer has carried it out; what was set aside below it is stale. Again: changes nothing."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO sweep_runs (consumer, sweep, rows) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (order.consumer, order.id, rows),
        )
        rejected.outdate(connection, order)


def forget_runs(database: ControlDatabase, consumer: str) -> None:
    """The consumer runs again what it has run, once it has passed that in every partition it reads by then."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM sweep_runs WHERE consumer = %s", (consumer,))


def waiting(database: ControlDatabase, consumer: str, topics: Sequence[Topic]) -> list[Waiting]:
    """Sweeps whose record the consumer has passed in some partition and that it has not run, oldest first."""
    with database.transaction() as connection, connection.cursor(row_factory=class_row(Waiting)) as cursor:
        return cursor.execute(_WAITING, _places(consumer, topics)).fetchall()


def expire(database: ControlDatabase, consumers: Mapping[str, Sequence[Topic]], seconds: float) -> int:
    """Forget sweeps first seen more than `seconds` ago, save those that one of `consumers` may still run or waits for.

    A sweep that some partition never passed (a consumer younger than it) can never be run once Kafka has lost its
    records.
    """
    with database.transaction() as connection:
        old = connection.execute(
            "SELECT id FROM sweeps WHERE seen_at < clock_timestamp() - make_interval(secs => %s) ORDER BY id FOR UPDATE",
            (seconds,),
        ).fetchall()
        # Asked for once the sweeps are locked: whoever begins to wait for one now stores it anew.
        kept = [order.id for name, topics in consumers.items() for order in _due(connection, name, topics)]
        return connection.execute(
            "DELETE FROM sweeps WHERE id = ANY(%s) AND id <> ALL(%s)"
            " AND NOT EXISTS (SELECT FROM sweep_waits WHERE sweep = sweeps.id)",
            ([id_ for (id_,) in old], kept),
        ).rowcount


def _places(consumer: str, topics: Sequence[Topic]) -> dict[str, Any]:
    return {
        "consumer": consumer,
        "topics": [topic.topic for topic in topics],
        "partitions": [topic.partitions for topic in topics],
        "changes": topics[0].topic,
        "takes_rows": len(topics) > 1,
        "places": sum(topic.partitions for topic in topics),
    }


_WAIT = """
WITH place (consumer, sweep, topic, partition, record_offset) AS (VALUES (%s, %s, %s, %s::integer, %s::bigint))
INSERT INTO sweep_waits (consumer, sweep, topic, partition, record_offset)
SELECT place.* FROM place LEFT JOIN sweep_passages AS passage USING (consumer, sweep, topic, partition)
 WHERE passage.sweep IS NULL
    ON CONFLICT DO NOTHING
"""
_PASSED = """
  FROM sweeps JOIN sweep_passages AS passage ON passage.sweep = sweeps.id
  JOIN unnest(%(topics)s::text[], %(partitions)s::integer[]) AS place (topic, partitions)
    ON place.topic = passage.topic AND passage.partition < place.partitions
 WHERE passage.consumer = %(consumer)s
   AND (why = 'truncate' OR %(takes_rows)s)
   AND NOT EXISTS (SELECT FROM sweep_runs WHERE consumer = passage.consumer AND sweep = sweeps.id)
 GROUP BY sweeps.id
"""
_DUE = f"""
SELECT id, source, table_name, type, merchant, version, why,
       array_agg(record_offset ORDER BY passage.partition) FILTER (WHERE passage.topic = %(changes)s)
{_PASSED} HAVING count(*) = %(places)s ORDER BY seen_at, id
"""
_WAITING = f"""
SELECT %(consumer)s AS consumer, source, type, merchant, why, count(*) AS passed, %(places)s AS partitions,
       extract(epoch FROM clock_timestamp() - seen_at)::float8 AS seconds
{_PASSED} ORDER BY seen_at, id
"""  # noqa: S608  constants only
