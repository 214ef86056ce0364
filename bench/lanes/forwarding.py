"""``python -m bench.lanes.forwarding TOPIC GROUP SIZE``: from Kafka to plain Celery, up to SIZE events in a task.

Goes on from the group's committed offsets and commits what it has published.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from bench.lanes import plain
from bench.lanes.events import PARTITIONS
from bench.lanes.shards import FORWARDING, tasks
from pipeline.bridge.client_settings import READING

_OPTIONS: Mapping[str, Any] = {"declare": [], "argsrepr": "", "kwargsrepr": "", "ignore_result": True}


def forward(producer: Any, records: Iterable[Any], size: int) -> None:
    """Publish the tasks of what was read."""
    for queue, batches in tasks(records, size).items():
        for events in batches:
            if size == 1:
                plain.one.apply_async(events[0], queue=queue, producer=producer, **_OPTIONS)
            else:
                plain.many.apply_async((events,), queue=queue, producer=producer, **_OPTIONS)


def run(topic: str, group: str, size: int) -> None:
    """Until SIGTERM."""
    consumer = KafkaConsumer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=group,
        **READING,
    )
    consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
    sys.stdout.write(f"{FORWARDING}\n")
    with plain.app.producer_pool.acquire(block=True) as producer:
        while True:
            read = consumer.poll(timeout_ms=100)
            for records in read.values():
                forward(producer, records, size)
            if read:
                consumer.commit()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
