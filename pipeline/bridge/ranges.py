"""A part of a topic, read once from start to end, by no group: nothing is committed and nobody is disturbed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from kafka import TopicPartition

from pipeline.bridge.client import Client
from pipeline.bridge.client_errors import translated
from pipeline.bridge.client_settings import READING
from pipeline.bridge.group_view import ANSWER_MS
from pipeline.errors import TransientError
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity
from pipeline.ports import Record

_POLL_MS, _PATIENCE = 500, 60


class Range(NamedTuple):
    """The offsets of one partition from `first` to the one before `end`."""

    first: int
    end: int


class RangeReader:
    """One topic, read by itself."""

    def __init__(self, bootstrap: str, topic: str, security: KafkaSecurity = PLAINTEXT) -> None:
        self.topic = topic
        with translated():
            self._consumer = Client(
                bootstrap_servers=bootstrap,
                bootstrap_timeout_ms=ANSWER_MS,
                **READING,
                **security.kafka_python(),
            )

    def bounds(self) -> dict[int, Range]:
        """What each partition has now; empty when there is no such topic."""
        with translated():
            self._consumer.topics()
            places = self._places(self._consumer.partitions_for_topic(self.topic) or ())
            firsts = self._consumer.beginning_offsets(places, timeout_ms=ANSWER_MS)
            ends = self._consumer.end_offsets(places, timeout_ms=ANSWER_MS)
        return {place.partition: Range(firsts[place], ends[place]) for place in places}

    def at(self, moment: datetime, bounds: Mapping[int, Range]) -> dict[int, int]:
        """In each partition the first record published at or after `moment`; its end when there is none."""
        asked = dict.fromkeys(self._places(bounds), round(moment.timestamp() * 1000))
        with translated():
            found = self._consumer.offsets_for_times(asked, timeout_ms=ANSWER_MS)
        offsets = {place.partition: one.offset for place, one in found.items() if one is not None}
        return {partition: offsets.get(partition, bound.end) for partition, bound in bounds.items()}

    def read(self, ranges: Mapping[int, Range]) -> Iterator[Mapping[int, Sequence[Record]]]:
        """All records, a few megabytes at a time, each partition's in order. TransientError when Kafka falls silent."""
        left = {partition: one for partition, one in ranges.items() if one.first < one.end}
        self._begin(left)
        silent = 0
        while left:
            with translated():
                found = self._consumer.poll(timeout_ms=_POLL_MS)
            silent = 0 if found else silent + 1
            if silent > _PATIENCE:
                raise TransientError(
                    f"kafka gives no records of {self.topic}", hint="see KAFKA_BOOTSTRAP_SERVERS"
                )
            yield self._within(found, left)
            left = {
                partition: one for partition, one in left.items() if not self._is_over(partition, one.end)
            }

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close(autocommit=False, timeout_ms=ANSWER_MS)

    def _begin(self, ranges: Mapping[int, Range]) -> None:
        with translated():
            self._consumer.assign(self._places(ranges))
            for partition, one in ranges.items():
                self._consumer.seek(TopicPartition(self.topic, partition), one.first)

    def _is_over(self, partition: int, end: int) -> bool:
        """By position, not by the last record: the offset before `end` may hold none. What is over is read no more."""
        place = TopicPartition(self.topic, partition)
        with translated():
            if (self._consumer.position(place, timeout_ms=ANSWER_MS) or 0) < end:
                return False
            self._consumer.pause(place)
        return True

    @staticmethod
    def _within(
        found: Mapping[Any, Sequence[Any]], left: Mapping[int, Range]
    ) -> Mapping[int, Sequence[Record]]:
        return {
            place.partition: [record for record in records if record.offset < left[place.partition].end]
            for place, records in found.items()
            if place.partition in left
        }

    def _places(self, partitions: Any) -> list[Any]:
        return [TopicPartition(self.topic, partition) for partition in sorted(partitions)]
