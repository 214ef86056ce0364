"""The producer on confluent-kafka, an optional extra: the same promises at a fraction of the CPU."""

from __future__ import annotations

from typing import Any

from pipeline.capture.publisher import failure
from pipeline.errors import ConfigurationError, TransientError
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity

client: Any
try:
    import confluent_kafka as client
except ModuleNotFoundError:  # the extra is not installed
    client = None

_MIB = 1024 * 1024
_DAY_MS = 24 * 3600 * 1000


class ConfluentProducer:
    """See Producer. TransientError when no broker answers, ConfigurationError when the package is not installed."""

    def __init__(
        self, bootstrap_servers: str, *, client_id: str, security: KafkaSecurity = PLAINTEXT
    ) -> None:
        if client is None:
            raise ConfigurationError(
                ('deployment.producer is "confluent-kafka": run: pip install "merchant-pipeline[confluent]"',)
            )
        self.records = self.size = 0
        self._lost: str | None = None
        self._client = client.Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "client.id": client_id,
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "batch.size": 256 * 1024,
                # Records of up to 1 MiB must pass, framing included.
                "message.max.bytes": _MIB + 64 * 1024,
                "delivery.timeout.ms": _DAY_MS,
                # One log line per lost connection and second says enough, and the figures tell the rest.
                "log_level": 2,
                **security.librdkafka(),
            }
        )
        try:
            self._client.list_topics(timeout=5)
        except client.KafkaException as error:
            self.close()
            raise TransientError(f"Kafka does not answer: {error.args[0].name()}") from error

    def send(self, topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        """See Producer."""
        try:
            self._client.produce(topic, value, key, partition, self._delivered)
        except (client.KafkaException, BufferError) as error:
            raise failure(f"Kafka refuses a record: {type(error).__name__}") from error
        self.records += 1
        self.size += len(value)

    def push(self) -> None:
        """See Producer."""
        self._client.flush(0.2)
        self._check()

    def wait(self, seconds: float) -> None:
        """See Producer."""
        self._client.poll(seconds)
        self._check()

    def close(self) -> None:
        """See Producer."""
        self._client.purge()
        self._client.flush(1)

    def _delivered(self, error: Any, record: Any) -> None:
        self.records -= 1
        self.size -= len(record)
        if error is not None:
            self._lost = error.name()

    def _check(self) -> None:
        if self._lost is not None:
            raise failure(f"Kafka did not take a record: {self._lost}")
