"""A view on topics' bounds and a group's offsets, without being a member of the group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition

from pipeline.bridge.client import Client
from pipeline.bridge.client_errors import translated
from pipeline.bridge.client_settings import READING
from pipeline.bridge.topics import Topics
from pipeline.control.identities import Identity
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity
from pipeline.ports import Committed

ANSWER_MS = 3000
_GLANCES, _GLANCE_MS = 5, 200


class GroupView:
    """Reads topics' bounds and a group's offsets without being a member; offsets can be set while it has none.

    Partitions are numbered through `topics`; those that do not exist are left out.
    """

    def __init__(
        self, bootstrap: str, topics: Topics, group: str | None = None, security: KafkaSecurity = PLAINTEXT
    ) -> None:
        self._topics = topics
        with translated():
            self._consumer = Client(
                bootstrap_servers=bootstrap,
                group_id=group,
                bootstrap_timeout_ms=ANSWER_MS,
                **READING,
                **security.kafka_python(),
            )

    def counts(self) -> dict[str, int]:
        """How many partitions each topic has; 0 when there is no such topic."""
        with translated():
            self._consumer.topics()
            return {name: len(self._consumer.partitions_for_topic(name) or ()) for name in self._topics.names}

    def identities(self) -> dict[str, Identity]:
        """Who the topics are that exist."""
        with translated():
            self._consumer.topics()
            return self._consumer.identities(self._topics.names)

    def beginnings(self) -> dict[int, int]:
        """The first offset of each partition that still exists."""
        return self._by_partition(self._consumer.beginning_offsets)

    def ends(self) -> dict[int, int]:
        """The offset after the last record of each partition."""
        return self._by_partition(self._consumer.end_offsets)

    def committed(self) -> dict[int, int]:
        """The group's committed offset of each partition that has one."""
        found = committed_of(self._consumer, self._topics, self._existing())
        return {partition: place.offset for partition, place in found.items()}

    def commit(self, positions: Mapping[int, int]) -> None:
        """Set offsets; FencedError while the group has members."""
        with translated():
            self._consumer.assign(_places(self._topics, positions))
            places = {partition: Committed(offset) for partition, offset in positions.items()}
            self._consumer.commit(for_kafka(self._topics, places), timeout_ms=ANSWER_MS)

    def at(self, moments: Mapping[int, float]) -> dict[int, int]:
        """In each of these partitions the first record published at or after that moment, in seconds since 1970.

        The end of the partition when there is none.
        """
        asked = {
            TopicPartition(*self._topics.place(number)): round(moment * 1000)
            for number, moment in moments.items()
        }
        if not asked:
            return {}
        with translated():
            found = self._consumer.offsets_for_times(asked, timeout_ms=ANSWER_MS)
            ends = self._consumer.end_offsets(list(asked), timeout_ms=ANSWER_MS)
        offsets = {place: ends[place] if one is None else one.offset for place, one in found.items()}
        return {self._topics.number(place.topic, place.partition): at for place, at in offsets.items()}

    def published_at(self, positions: Mapping[int, int]) -> dict[int, float]:
        """When the record at each of these offsets was published, in seconds since 1970; only of those it can read."""
        places = dict(zip(_places(self._topics, positions), positions.values(), strict=True))
        found: dict[int, float] = {}
        with translated():
            self._consumer.assign(list(places))
            for place, offset in places.items():
                self._consumer.seek(place, offset)
            for _ in range(_GLANCES):
                for place, records in self._consumer.poll(timeout_ms=_GLANCE_MS).items():
                    number = self._topics.number(place.topic, place.partition)
                    found.setdefault(number, records[0].timestamp / 1000)
                if len(found) == len(places):
                    break
        return found

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close(autocommit=False, timeout_ms=ANSWER_MS)

    def _by_partition(self, ask: Callable[..., Mapping[Any, int]]) -> dict[int, int]:
        places = _places(self._topics, self._existing())
        with translated():
            found = ask(places, timeout_ms=ANSWER_MS)
        return {self._topics.number(place.topic, place.partition): at for place, at in found.items()}

    def _existing(self) -> list[int]:
        counts = self.counts()
        places = ((number, self._topics.place(number)) for number in self._topics.numbers)
        return [number for number, place in places if place.partition < counts[place.topic]]


def committed_of(consumer: Any, topics: Topics, numbers: Iterable[int]) -> dict[int, Committed]:
    """The group's committed position of each of these partitions that has one; offset and note of one commit."""
    with translated():
        found = {
            number: consumer.committed(
                TopicPartition(*topics.place(number)), metadata=True, timeout_ms=ANSWER_MS
            )
            for number in numbers
        }
    return {
        partition: Committed(place.offset, place.metadata or "")
        for partition, place in found.items()
        if place is not None
    }


def for_kafka(topics: Topics, positions: Mapping[int, Committed]) -> dict[Any, Any]:
    """Positions as the client takes them in a commit."""
    return {
        TopicPartition(*topics.place(number)): OffsetAndMetadata(place.offset, metadata=place.note)
        for number, place in positions.items()
    }


def _places(topics: Topics, numbers: Iterable[int]) -> list[Any]:
    return [TopicPartition(*topics.place(number)) for number in numbers]
