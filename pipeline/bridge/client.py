"""The Kafka client, for all who read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from kafka import KafkaConsumer

from pipeline.control.identities import Identity


class Client(KafkaConsumer):  # type: ignore[misc]  # the client has no types
    """Kafka's client, of which nothing stays behind when no broker answers: its own keeps a thread and its sockets."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except BaseException:
            if hasattr(self, "_client"):
                self._client.close()
            raise

    def identities(self, topics: Iterable[str]) -> dict[str, Identity]:
        """Who these topics are by the newest metadata that the client has; those that it does not know are left out."""
        cluster = self._cluster
        counts = {topic: cluster.partitions_for_topic(topic) for topic in topics}
        return {
            topic: Identity(cluster.cluster_id, _told(cluster.topic_id(topic)))
            for topic, known in counts.items()
            if known
        }


def _told(id_: UUID | None) -> str | None:
    """Brokers that know of no ids send zero."""
    return str(id_) if id_ is not None and id_.int else None
