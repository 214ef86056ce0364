"""How far a source is published, told to Kafka before each batch: who publishes, which tick, and its mark.

The mark is a uuid that ``next_batch`` writes into the source in its own durable transaction. A database that holds the
newest published mark holds everything ever published before it; one that lacks it has lost some of that.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from psycopg import sql

from pipeline.capture.session import Connection
from pipeline.errors import PermanentError, TransientError
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity

_ANSWER_MS = 5_000
_READ_SECONDS = 30.0
_FIRST_LOOK = 1_000  # records from the end; ten times as many at each further look


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """One record of the progress topic; its key is the source."""

    source: str
    generation: int
    tick: int
    mark: str
    timeline: int


def schema() -> Iterable[sql.SQL]:
    """What the source needs for it; statements that may be repeated."""
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.progress (tick bigint PRIMARY KEY, generation integer NOT NULL,"
        " mark uuid NOT NULL, at timestamptz NOT NULL DEFAULT now())"
    )
    yield sql.SQL("ALTER TABLE cdc.identity ADD COLUMN IF NOT EXISTS timeline integer")


def last_progress(
    bootstrap_servers: str, topic: str, source: str, security: KafkaSecurity = PLAINTEXT
) -> Progress | None:
    """The newest record of a source, or None; TransientError when Kafka does not answer."""
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            bootstrap_timeout_ms=_ANSWER_MS,
            enable_auto_commit=False,
            max_poll_records=10**6,
            fetch_max_wait_ms=50,
            metrics_enabled=False,
            **security.kafka_python(),
        )
        with closing(consumer):
            return _newest(consumer, TopicPartition(topic, 0), source.encode())
    except KafkaError as error:
        raise TransientError(
            f"Kafka does not answer: {type(error).__name__}", hint="see KAFKA_BOOTSTRAP_SERVERS"
        ) from error


def _newest(consumer: Any, place: Any, key: bytes) -> Progress | None:
    """Look back from the end, farther each time: a source that is quiet has its record far back."""
    consumer.assign([place])
    first = consumer.beginning_offsets([place], timeout_ms=_ANSWER_MS)[place]
    end = consumer.end_offsets([place], timeout_ms=_ANSWER_MS)[place]
    start, upto, look = end, end, _FIRST_LOOK
    while start > first:
        start, upto, look = max(first, end - look), start, look * 10
        value = _last_of(consumer, place, start, upto, key)
        if value is not None:
            return _decode(value)
    return None


def _last_of(consumer: Any, place: Any, start: int, upto: int, key: bytes) -> bytes | None:
    consumer.seek(place, start)
    found: bytes | None = None
    deadline = time.monotonic() + _READ_SECONDS
    while consumer.position(place, timeout_ms=_ANSWER_MS) < upto:
        if time.monotonic() > deadline:
            raise TransientError(f"topic {place.topic} could not be read to its end")
        for record in consumer.poll(timeout_ms=200).get(place, ()):
            if record.key == key and record.offset < upto:
                found = record.value
    return found


def _decode(value: bytes) -> Progress:
    try:
        return msgspec.json.decode(value, type=Progress)
    except msgspec.DecodeError as error:
        raise PermanentError(f"the progress topic holds what is no progress: {error}") from error


def holds(connection: Connection, mark: str) -> bool:
    """True when the source has this mark, and so everything that was published before it."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM cdc.progress WHERE mark = %s::uuid)", (mark,)
    ).fetchone()
    return row is not None and bool(row[0])


def forget(connection: Connection, before: int) -> None:
    """Drop the marks of ticks below `before`: Kafka's newest is at most one behind the source's."""
    connection.execute("DELETE FROM cdc.progress WHERE tick < %s", (before,))
