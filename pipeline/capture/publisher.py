"""The relay's Kafka: records go out in order per merchant, and every single one is checked.

kafka-python's ``flush`` does not raise for records that failed, and an idempotent producer that lost a batch may hang
for ever. So each future is looked at, waiting has a deadline of its own, and after any failure the producer is never
used again: the process ends and the batch is replayed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from pipeline.domain.routing import partition_of
from pipeline.errors import PipelineError, TransientError

OUTSTANDING, OUTSTANDING_BYTES = 4_000, 8 * 1024 * 1024
_DAY_MS = 24 * 3600 * 1000


class PublishError(PipelineError):
    """Kafka did not take a record: this process must end, and its batch be replayed by the next one."""


class StoppedError(PipelineError):
    """Asked to stop while waiting for Kafka: the batch is replayed later."""


class Publisher:
    """Publishes to one topic. Not for several threads.

    `patience` is how many seconds may pass without an acknowledgement; `proxy_url` an HTTP or SOCKS5 proxy on the way.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        partitions: int,
        *,
        client_id: str,
        patience: float = 120.0,
        proxy_url: str | None = None,
    ) -> None:
        self._topic = topic
        self._patience = patience
        self._route = lru_cache(maxsize=100_000)(
            lambda merchant: (merchant.encode(), partition_of(merchant, partitions))
        )
        self._pending: deque[tuple[Any, int]] = deque()
        self._pending_bytes = 0
        self._failed = False
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=bootstrap_servers,
                client_id=client_id,
                acks="all",
                # Explicit: with conflicting settings the client would silently do without.
                enable_idempotence=True,
                compression_type="lz4",
                batch_size=1024 * 1024,
                linger_ms=5,
                # Past its delivery timeout an idempotent producer hangs for ever; the deadline below comes first.
                delivery_timeout_ms=_DAY_MS,
                max_block_ms=5_000,
                bootstrap_timeout_ms=5_000,
                metrics_enabled=False,
                proxy_url=proxy_url,
            )
        except KafkaError as error:
            raise TransientError(f"Kafka does not answer: {type(error).__name__}") from error

    @property
    def full(self) -> bool:
        """True when enough is outstanding to wait for some of it: nothing else bounds the client's memory."""
        return len(self._pending) >= OUTSTANDING or self._pending_bytes >= OUTSTANDING_BYTES

    def send(self, merchant: str, value: bytes) -> None:
        """Hand one record over; PublishError when the client refuses it."""
        key, partition = self._route(merchant)
        try:
            future = self._producer.send(self._topic, value, key=key, partition=partition)
        except KafkaError as error:
            raise self._failure(f"Kafka refuses a record: {type(error).__name__}") from error
        self._pending.append((future, len(value)))
        self._pending_bytes += len(value)

    def settle(self, stopping: Callable[[], bool], *, keep: int = 0) -> None:
        """Wait until at most `keep` records are outstanding, each of the others acknowledged.

        PublishError when one failed or none was acknowledged in time; StoppedError once `stopping` says so.
        """
        if keep == 0 and self._pending:
            self._push()
        deadline = time.monotonic() + self._patience
        while len(self._pending) > keep:
            future, size = self._pending[0]
            if self._acknowledged(future):
                self._pending.popleft()
                self._pending_bytes -= size
                deadline = time.monotonic() + self._patience
            elif stopping():
                raise StoppedError("stopped while waiting for Kafka")
            elif time.monotonic() > deadline:
                raise self._failure(f"Kafka acknowledged nothing for {self._patience:g} s")

    def close(self) -> None:
        """End the producer without waiting for what is outstanding; one that failed may never end, and is left alone."""
        if not self._failed:
            with suppress(KafkaError):
                self._producer.close(timeout=1)

    def _failure(self, what: str) -> PublishError:
        self._failed = True
        return PublishError(what, hint="the process ends and its batch is replayed; see the brokers")

    def _push(self) -> None:
        """Send what lingers: the batch waits for it, and nothing more will come to fill the requests."""
        with suppress(KafkaError):  # not through within that time: the futures will tell
            self._producer.flush(timeout=0.2)

    def _acknowledged(self, future: Any) -> bool:
        try:
            future.get(timeout=0.2)
        except KafkaError as error:
            if not future.is_done:
                return False
            raise self._failure(f"Kafka did not take a record: {type(error).__name__}") from error
        return True
