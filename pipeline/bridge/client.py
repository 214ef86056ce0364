"""The Kafka client, for all who read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from kafka import KafkaConsumer

from pipeline.control.identities import Identity

_GATHERING: Mapping[str, int] = {"fetch_min_bytes": 256 * 1024, "fetch_max_wait_ms": 6}


class Client(KafkaConsumer):  # type: ignore[misc]  # the client has no types
    """Kafka's client, of which nothing stays behind when no broker answers: its own keeps a thread and its sockets."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except BaseException:
            if hasattr(self, "_client"):
                self._client.close()
            raise
        self._patiently = {name: self._fetcher.config[name] for name in _GATHERING}

    def gather(self, *, gathering: bool) -> None:
        """Let the broker hold the next fetches for a moment, so that each brings what comes together; or not any more.

        While records come one by one, a fetch that does not wait brings just the first, and those behind it wait for the
        next but one.
        """
        self._fetcher.config.update(_GATHERING if gathering else self._patiently)

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
