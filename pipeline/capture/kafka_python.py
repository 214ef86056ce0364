"""The producer on kafka-python.

Its ``flush`` does not raise for records that failed, and once idempotent it may hang for ever after losing a batch. So
each future is looked at, and a producer that failed is not even closed.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from pipeline.capture.publisher import failure
from pipeline.errors import TransientError
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity

_DAY_MS = 24 * 3600 * 1000


class KafkaPythonProducer:
    """See Producer. TransientError when no broker answers; `proxy_url` names an HTTP or SOCKS5 proxy on the way."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_id: str,
        security: KafkaSecurity = PLAINTEXT,
        proxy_url: str | None = None,
    ) -> None:
        self.records = self.size = 0
        self._pending: deque[tuple[Any, int]] = deque()
        self._failed = False
        try:
            self._client = KafkaProducer(
                bootstrap_servers=bootstrap_servers,
                client_id=client_id,
                acks="all",
                # Explicit: with conflicting settings the client would silently do without.
                enable_idempotence=True,
                compression_type="lz4",
                batch_size=256 * 1024,  # larger ones come whole, and keep what is behind them waiting
                linger_ms=5,
                # Past its delivery timeout an idempotent producer hangs for ever; the publisher's patience ends first.
                delivery_timeout_ms=_DAY_MS,
                max_block_ms=5_000,
                bootstrap_timeout_ms=5_000,
                metrics_enabled=False,
                proxy_url=proxy_url,
                **security.kafka_python(),
            )
        except KafkaError as error:
            raise TransientError(f"Kafka does not answer: {type(error).__name__}") from error

    def send(self, topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        """See Producer."""
        try:
            future = self._client.send(topic, value, key=key, partition=partition)
        except KafkaError as error:
            self._failed = True
            raise failure(f"Kafka refuses a record: {type(error).__name__}") from error
        self._pending.append((future, len(value)))
        self.records += 1
        self.size += len(value)

    def push(self) -> None:
        """See Producer."""
        with suppress(KafkaError):  # not through within that time: the futures will tell
            self._client.flush(timeout=0.2)

    def wait(self, seconds: float) -> None:
        """See Producer."""
        if self._pending and self._acknowledged(seconds):
            self._drop()
            while self._pending and self._pending[0][0].is_done and self._acknowledged(seconds):
                self._drop()

    def close(self) -> None:
        """See Producer."""
        if not self._failed:
            with suppress(KafkaError):
                self._client.close(timeout=1)

    def _acknowledged(self, seconds: float) -> bool:
        """True when the oldest record has come through."""
        future, _ = self._pending[0]
        try:
            future.get(timeout=seconds)
        except KafkaError as error:
            if not future.is_done:
                return False
            self._failed = True
            raise failure(f"Kafka did not take a record: {type(error).__name__}") from error
        return True

    def _drop(self) -> None:
        _, size = self._pending.popleft()
        self.records -= 1
        self.size -= size
