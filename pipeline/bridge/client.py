"""The Kafka client, for all who read."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer


class Client(KafkaConsumer):  # type: ignore[misc]  # the client has no types
    """Kafka's client, of which nothing stays behind when no broker answers: its own keeps a thread and its sockets."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except BaseException:
            if hasattr(self, "_client"):
                self._client.close()
            raise
