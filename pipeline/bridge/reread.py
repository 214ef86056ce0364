"""Partitions read again from anywhere, beside the group: nothing is committed and nobody is disturbed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from kafka import TopicPartition
from kafka import errors as kafka_errors

from pipeline.bridge.client import Client
from pipeline.bridge.client_errors import translated
from pipeline.bridge.client_settings import REREADING, SMALL_PIECE
from pipeline.bridge.group_view import ANSWER_MS
from pipeline.bridge.slices import Slices
from pipeline.bridge.stalls import STALLED_AFTER, StallWatch
from pipeline.bridge.topics import Topics
from pipeline.errors import PositionLostError, TransientError
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity
from pipeline.ports import Needs, Record

_log = structlog.get_logger()


class TopicRereader:
    """A Rereader of `topics`, by a client of its own that is opened by the first poll with something to read.

    What is sought, paused and dropped is told to the client at the next poll. A partition that should move and does
    not for 30 s is taken for a stall of the client: it is replaced, and goes on from the same positions.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Topics,
        *,
        security: KafkaSecurity = PLAINTEXT,
        options: Mapping[str, Any] = REREADING,
        stalled_after: float = STALLED_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = topics
        self._options = {
            "bootstrap_servers": bootstrap,
            "bootstrap_timeout_ms": ANSWER_MS,
            **security.kafka_python(),
            **options,
        }
        self._stalls = StallWatch(stalled_after, clock)
        self._client: Any = None
        self._pausing: frozenset[int] = frozenset()
        self._read: set[int] = set()
        self._sought: dict[int, int] = {}
        self._slices = Slices()
        self._piece = self._options["max_partition_fetch_bytes"]

    def seek(self, partition: int, offset: int, needs: Needs | None = None) -> None:
        """See Rereader."""
        self._read.add(partition)
        self._slices.forget([partition])
        self._sought[partition] = offset

    def pause(self, partitions: frozenset[int]) -> None:
        """See Rereader."""
        self._pausing = partitions

    def drop(self, partition: int) -> None:
        """See Rereader."""
        self._read.discard(partition)
        self._slices.forget([partition])
        self._sought.pop(partition, None)

    def poll(self, timeout: float, most: int | None = None) -> Mapping[int, Sequence[Record]]:
        """See Rereader; TransientError while the client cannot be opened."""
        if not self._read - self._pausing:
            return {}
        if self._slices.partitions - self._pausing:
            timeout = 0.0
        client = self._opened()
        self._tell(client)
        client.fetch(self._piece if most is None else min(self._piece, SMALL_PIECE), soon=True)
        if self._stalled(client):
            self._replace()
            return {}
        try:
            with translated():
                found = client.poll(timeout_ms=int(timeout * 1000))
        except PositionLostError as error:
            raise self._explained(client, error) from error
        brought = {self._number(place): batch for place, batch in found.items()}
        return self._slices.cut(brought, most, self._pausing)

    def position(self, partition: int) -> int:
        """See Rereader."""
        if partition in self._sought:
            return self._sought[partition]
        if (kept := self._slices.first(partition)) is not None:
            return kept
        with translated():
            return int(self._client.position(self._place(partition), timeout_ms=0))

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is None:
            return
        try:
            self._client.close(autocommit=False, timeout_ms=ANSWER_MS)
        except kafka_errors.KafkaError as error:
            _log.warning("a reader was closed without a word", error=type(error).__name__)
        self._client = None

    def _opened(self) -> Any:
        if self._client is None:
            with translated():
                self._client = Client(**self._options)
        return self._client

    def _tell(self, client: Any) -> None:
        """Assign, seek and pause as was asked for since the last poll."""
        places = set(self._places(self._read))
        if client.assignment() != places:
            client.assign(sorted(places))
        for number, offset in self._sought.items():
            client.seek(self._place(number), offset)
        self._sought.clear()
        wanted = set(self._places(self._read & (self._pausing | self._slices.partitions)))
        paused = client.paused()
        client.pause(*(wanted - paused))
        client.resume(*(paused - wanted))

    def _flowing(self) -> set[int]:
        return self._read - self._pausing - self._slices.partitions

    def _stalled(self, client: Any) -> bool:
        if not self._stalls.due():
            return False
        try:
            ends = self._bounds(client.end_offsets, self._flowing())
            behind = {number: at for number, end in ends.items() if (at := self.position(number)) < end}
        except TransientError:
            behind = {}  # a broker that does not answer explains a stall
        return self._stalls.stalled(behind)

    def _replace(self) -> None:
        _log.error("the kafka client of a reader stalls and is replaced")
        self._sought = {number: self.position(number) for number in self._read}
        self._slices.forget(self._read)
        self._stalls.stalled({})
        self.close()

    def _explained(self, client: Any, error: PositionLostError) -> PositionLostError:
        """The same, naming the partitions and what of them is gone."""
        begins = self._bounds(client.beginning_offsets, self._flowing())
        lost = {number: first for number, first in begins.items() if self.position(number) < first}
        if not lost:
            return error
        ranges = [
            f"{place.topic} partition {place.partition}: offsets {self.position(number)} to {first - 1} passed retention"
            for number, first in sorted(lost.items())
            for place in (self._topics.place(number),)
        ]
        return PositionLostError("; ".join(ranges), first=lost)

    def _bounds(self, ask: Callable[..., Mapping[Any, int]], numbers: Iterable[int]) -> dict[int, int]:
        with translated():
            found = ask(self._places(numbers), timeout_ms=ANSWER_MS)
        return {self._number(place): offset for place, offset in found.items()}

    def _place(self, number: int) -> Any:
        return TopicPartition(*self._topics.place(number))

    def _places(self, numbers: Iterable[int]) -> list[Any]:
        return [self._place(number) for number in sorted(numbers)]

    def _number(self, place: Any) -> int:
        return self._topics.number(place.topic, place.partition)
