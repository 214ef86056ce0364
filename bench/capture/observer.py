"""``python -m bench.capture.observer SERVERS TOPIC FILE``: a consumer outside of everything, which notes when it first sees a row.

Prints ``ready`` when it waits at the topic's end, and reads until its standard input closes; then FILE has a line per new
row: its request_id, and the monotonic second (the same clock in every process) at which the poll that had it returned.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

confluent_kafka: Any
try:
    import confluent_kafka
except ModuleNotFoundError:  # an extra
    confluent_kafka = None

Poll = tuple[float, list[bytes]]
"""When a poll returned, in monotonic seconds, and the values it had."""

_NEW_ROW = re.compile(rb'"op":"c".*"request_id":"([^"]+)"')
_AT_MOST = 100  # ms that a poll waits for a first record; it returns with it


def note(seen: dict[str, float], values: Iterable[bytes], now: float) -> None:
    """Remember when each new row was seen first."""
    for value in values:
        if (found := _NEW_ROW.search(value)) is not None:
            seen.setdefault(found[1].decode(), now)


def observe(polls: Iterator[Poll], stop: threading.Event) -> dict[str, float]:
    """Say ``ready``, and read until `stop` is set."""
    seen: dict[str, float] = {}
    next(polls)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not stop.is_set():
        now, values = next(polls)
        note(seen, values, now)
    return seen


def by_confluent(servers: str, topic: str) -> Iterator[Poll]:
    """From the end on, the first poll empty: with a client that takes little of the CPU that the relay needs."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "bench",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": _AT_MOST,
        }
    )
    places = [
        confluent_kafka.TopicPartition(topic, number)
        for number in consumer.list_topics(topic).topics[topic].partitions
    ]
    for place in places:
        place.offset = consumer.get_watermark_offsets(place)[1]
    consumer.assign(places)
    yield time.monotonic(), []
    while True:
        record = consumer.poll(_AT_MOST / 1000)
        yield time.monotonic(), [] if record is None or record.error() else [record.value()]


def by_kafka_python(servers: str, topic: str) -> Iterator[Poll]:
    """The same where confluent-kafka is not installed."""
    consumer = KafkaConsumer(
        bootstrap_servers=servers, fetch_min_bytes=1, max_poll_records=10**6, fetch_max_wait_ms=_AT_MOST
    )
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_end()
    for partition in partitions:
        consumer.position(partition)
    yield time.monotonic(), []
    while True:
        polled = consumer.poll(_AT_MOST)
        yield time.monotonic(), [record.value for records in polled.values() for record in records]


def main() -> None:
    """The command line."""
    servers, topic, file = sys.argv[1:]
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    seen = observe((by_confluent if confluent_kafka else by_kafka_python)(servers, topic), stop)
    lines = (json.dumps({"request_id": name, "monotonic": at}) + "\n" for name, at in seen.items())
    Path(file).write_text("".join(lines))


if __name__ == "__main__":
    main()
