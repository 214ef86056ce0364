"""A view on a topic's bounds and a group's offsets, without being a member of the group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from pipeline.bridge.client_errors import translated
from pipeline.bridge.client_settings import READING
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity
from pipeline.ports import Committed

ANSWER_MS = 3000
_GLANCES, _GLANCE_MS = 5, 200


class GroupView:
    """Reads a topic's bounds and a group's offsets without being a member; offsets can be set while it has none."""

    def __init__(
        self, bootstrap: str, topic: str, group: str | None = None, security: KafkaSecurity = PLAINTEXT
    ) -> None:
        self._topic = topic
        with translated():
            self._consumer = KafkaConsumer(
                bootstrap_servers=bootstrap,
                group_id=group,
                bootstrap_timeout_ms=ANSWER_MS,
                **READING,
                **security.kafka_python(),
            )

    def partitions(self) -> frozenset[int]:
        """The topic's partitions; empty when there is no such topic."""
        with translated():
            self._consumer.topics()
            return frozenset(self._consumer.partitions_for_topic(self._topic) or ())

    def beginnings(self) -> dict[int, int]:
        """The first offset of each partition that still exists."""
        return self._by_partition(self._consumer.beginning_offsets)

    def ends(self) -> dict[int, int]:
        """The offset after the last record of each partition."""
        return self._by_partition(self._consumer.end_offsets)

    def committed(self) -> dict[int, int]:
        """The group's committed offset of each partition that has one."""
        places = [TopicPartition(self._topic, p) for p in self.partitions()]
        return {partition: place.offset for partition, place in committed_of(self._consumer, places).items()}

    def commit(self, positions: Mapping[int, int]) -> None:
        """Set offsets; FencedError while the group has members."""
        with translated():
            self._consumer.assign([TopicPartition(self._topic, p) for p in positions])
            places = {partition: Committed(offset) for partition, offset in positions.items()}
            self._consumer.commit(for_kafka(self._topic, places), timeout_ms=ANSWER_MS)

    def published_at(self, positions: Mapping[int, int]) -> dict[int, float]:
        """When the record at each of these offsets was published, in seconds since 1970; only of those it can read."""
        places = {TopicPartition(self._topic, partition): offset for partition, offset in positions.items()}
        found: dict[int, float] = {}
        with translated():
            self._consumer.assign(list(places))
            for place, offset in places.items():
                self._consumer.seek(place, offset)
            for _ in range(_GLANCES):
                for place, records in self._consumer.poll(timeout_ms=_GLANCE_MS).items():
                    found.setdefault(place.partition, records[0].timestamp / 1000)
                if len(found) == len(places):
                    break
        return found

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close(autocommit=False, timeout_ms=ANSWER_MS)

    def _by_partition(self, ask: Callable[..., Mapping[Any, int]]) -> dict[int, int]:
        places = [TopicPartition(self._topic, p) for p in self.partitions()]
        with translated():
            return {place.partition: offset for place, offset in ask(places, timeout_ms=ANSWER_MS).items()}


def committed_of(consumer: Any, places: Sequence[Any]) -> dict[int, Committed]:
    """The group's committed position of each of these partitions that has one; offset and note of one commit."""
    with translated():
        found = {
            place.partition: consumer.committed(place, metadata=True, timeout_ms=ANSWER_MS)
            for place in places
        }
    return {
        partition: Committed(place.offset, place.metadata or "")
        for partition, place in found.items()
        if place is not None
    }


def for_kafka(topic: str, positions: Mapping[int, Committed]) -> dict[Any, Any]:
    """Positions as the client takes them in a commit."""
    return {
        TopicPartition(topic, p): OffsetAndMetadata(place.offset, metadata=place.note)
        for p, place in positions.items()
    }
