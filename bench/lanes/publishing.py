"""Records into Kafka, as many as it takes: what a bench finds there when it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import Producer

from bench.lanes.events import Record

_SETTINGS: Mapping[str, str | int] = {
    "acks": "all",
    "compression.type": "lz4",
    "batch.size": 256 * 1024,
    "queue.buffering.max.messages": 200_000,
}
_SAY_EVERY = 10_000


def producer(bootstrap: str, linger_ms: float) -> Producer:
    """The C client: what it uses while others are measured is as little as can be."""
    return Producer({**_SETTINGS, "bootstrap.servers": bootstrap, "linger.ms": linger_ms})


def publish(bootstrap: str, topic: str, records: Iterable[Record], say: Callable[[int], None]) -> int:
    """Publish everything and wait for Kafka; returns how many. RuntimeError when Kafka did not take one."""
    client, failures, count = producer(bootstrap, 50), _Failures(), 0
    for count, (partition, key, value) in enumerate(records, 1):
        while True:
            try:
                client.produce(topic, value, key, partition, on_delivery=failures)
                break
            except BufferError:
                client.poll(0.1)
        if count % _SAY_EVERY == 0:
            client.poll(0)
            say(count)
    client.flush(60)
    if failures.count or len(client):
        raise RuntimeError(f"Kafka did not take {failures.count + len(client)} of {count} records")
    return count


class _Failures:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: object, _: object) -> None:
        self.count += error is not None
