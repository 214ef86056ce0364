"""The relay's Kafka: records go out in order per merchant, and every single one is checked.

Whatever client carries them, waiting has a deadline of its own, and after any failure the producer is never used
again: the process ends and the batch is replayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

from pipeline.domain.routing import partition_of
from pipeline.errors import PipelineError

OUTSTANDING, OUTSTANDING_BYTES = 4_000, 8 * 1024 * 1024
_GLANCE = 0.2  # seconds between two looks at whether to stop


class PublishError(PipelineError):
    """Kafka did not take a record: this process must end, and its batch be replayed by the next one."""


class StoppedError(PipelineError):
    """Asked to stop while waiting for Kafka: the batch is replayed later."""


class Producer(Protocol):
    """A Kafka client as the publisher uses it: idempotent, acks=all, lz4. Not for several threads.

    ``records`` and ``size`` count what was sent and is not acknowledged, in records and bytes. Every method raises
    PublishError when a record was refused or lost; the producer is then good for `close` alone.
    """

    records: int
    size: int

    def send(self, topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        """Hand one record over; it may linger a few milliseconds."""

    def push(self) -> None:
        """Nothing more will come to fill the requests: send what lingers."""

    def wait(self, seconds: float) -> None:
        """Take acknowledgements, waiting up to `seconds` for the first."""

    def close(self) -> None:
        """End without waiting for what is outstanding."""


class Publisher:
    """Publishes merchants' records, each in the partition of its merchant. Not for several threads.

    `topics`: partitions by topic. `patience` is how many seconds may pass without an acknowledgement.
    """

    def __init__(self, producer: Producer, topics: Mapping[str, int], *, patience: float = 120.0) -> None:
        self._producer = producer
        self._patience = patience
        self._partitions = dict(topics)
        self._routes = {topic: _route(partitions) for topic, partitions in topics.items()}

    @property
    def idle(self) -> bool:
        """True when nothing is outstanding."""
        return self._producer.records == 0

    @property
    def full(self) -> bool:
        """True when enough is outstanding to wait for some of it: nothing else bounds the client's memory."""
        return self._producer.records >= OUTSTANDING or self._producer.size >= OUTSTANDING_BYTES

    def send(self, topic: str, merchant: str, value: bytes) -> None:
        """Hand one record over; PublishError when the client refuses it."""
        key, partition = self._routes[topic](merchant)
        self._producer.send(topic, partition, key, value)

    def broadcast(self, topic: str, value: bytes) -> None:
        """Hand one record without key over for every partition, each behind whatever was handed over before."""
        for partition in range(self._partitions[topic]):
            self._producer.send(topic, partition, None, value)

    def confirm(self, topic: str, key: bytes, value: bytes, stopping: Callable[[], bool]) -> None:
        """Publish one record into the only partition of `topic` and wait until Kafka has it, as by `settle`."""
        self._producer.send(topic, 0, key, value)
        self.settle(stopping)

    def settle(self, stopping: Callable[[], bool], *, keep: int = 0) -> None:
        """Wait until at most `keep` records are outstanding, each of the others acknowledged.

        PublishError when one failed or none was acknowledged in time; StoppedError once `stopping` says so.
        """
        producer = self._producer
        if keep == 0 and producer.records:
            producer.push()
        deadline = time.monotonic() + self._patience
        while (before := producer.records) > keep:
            producer.wait(_GLANCE)
            if producer.records < before:
                deadline = time.monotonic() + self._patience
            elif stopping():
                raise StoppedError("stopped while waiting for Kafka")
            elif time.monotonic() > deadline:
                raise failure(f"Kafka acknowledged nothing for {self._patience:g} s")

    def close(self) -> None:
        """End the producer without waiting for what is outstanding."""
        self._producer.close()


def failure(what: str) -> PublishError:
    """The one thing to do about a producer that failed."""
    return PublishError(what, hint="the process ends and its batch is replayed; see the brokers")


def _route(partitions: int) -> Callable[[str], tuple[bytes, int]]:
    return lru_cache(maxsize=100_000)(
        lambda merchant: (merchant.encode(), partition_of(merchant, partitions))
    )
