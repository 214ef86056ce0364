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
from collections.abc import Iterable
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

_NEW_ROW = re.compile(rb'"op":"c".*"request_id":"([^"]+)"')
_AT_MOST = 100  # ms that a poll waits for a first record; it returns with it


def note(seen: dict[str, float], values: Iterable[bytes], now: float) -> None:
    """Remember when each new row was seen first."""
    for value in values:
        if (found := _NEW_ROW.search(value)) is not None:
            seen.setdefault(found[1].decode(), now)


def observe(servers: str, topic: str, stop: threading.Event) -> dict[str, float]:
    """Read from the end on until `stop` is set."""
    consumer = KafkaConsumer(
        bootstrap_servers=servers, fetch_min_bytes=1, max_poll_records=10**6, fetch_max_wait_ms=_AT_MOST
    )
    seen: dict[str, float] = {}
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_end()
        for partition in partitions:
            consumer.position(partition)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not stop.is_set():
            polled = consumer.poll(_AT_MOST)
            now = time.monotonic()
            for records in polled.values():
                note(seen, (record.value for record in records), now)
    finally:
        consumer.close()
    return seen


def main() -> None:
    """The command line."""
    servers, topic, file = sys.argv[1:]
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    seen = observe(servers, topic, stop)
    lines = (json.dumps({"request_id": name, "monotonic": at}) + "\n" for name, at in seen.items())
    Path(file).write_text("".join(lines))


if __name__ == "__main__":
    main()
