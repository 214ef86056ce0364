"""A bridge's books in the control database: see ``pipeline.ports.Books``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.bridge.topics import Topics
from pipeline.consumer import Rejection
from pipeline.control import detached, rejected, requests, sweeps
from pipeline.control.database import ControlDatabase
from pipeline.control.fences import Hold
from pipeline.control.sweeps import Passage
from pipeline.ports import Detachment, Request, SweepRecord, Takeover


class Bookkeeping:
    """One consumer's, by the numbers of its partitions."""

    def __init__(self, database: ControlDatabase, consumer: str, topics: Topics) -> None:
        self._database = database
        self._consumer = consumer
        self._topics = topics

    def take_over(self, partitions: Iterable[int]) -> Mapping[int, Takeover]:
        """See Books."""
        found = detached.take_over(self._database, self._consumer, self._places(partitions))
        return {self._topics.number(*place): takeover for place, takeover in found.items()}

    def detach(self, partition: int, fence: int, lanes: Sequence[Detachment]) -> Sequence[int]:
        """See Books."""
        return detached.detach(self._database, self._hold(partition, fence), lanes)

    def hand_over(self, partition: int, fence: int, until: Mapping[str, int]) -> None:
        """See Books."""
        detached.hand_over(self._database, self._hold(partition, fence), until)

    def advance(self, partition: int, fence: int, first: Mapping[str, int]) -> None:
        """See Books."""
        detached.advance(self._database, self._hold(partition, fence), first)

    def close(self, partition: int, fence: int, lanes: Sequence[str]) -> None:
        """See Books."""
        detached.close(self._database, self._hold(partition, fence), lanes)

    def requests(self, partitions: Iterable[int]) -> Sequence[Request]:
        """See Books."""
        found = requests.waiting(self._database, self._consumer, self._places(partitions))
        return [request._replace(partition=self._topics.number(*place)) for place, request in found]

    def answer(self, partition: int, fence: int, request: int, refusal: str) -> None:
        """See Books."""
        requests.refuse(self._database, self._hold(partition, fence), request, refusal)

    def consumer_paused(self) -> bool:
        """See Books."""
        return requests.paused(self._database, self._consumer) is not None

    def set_aside(self, rejections: Sequence[Rejection]) -> None:
        """See Books."""
        names = self._topics.names
        rejected.store(self._database, self._consumer, (names[0], names[-1]), rejections)

    def wait_sweeps(self, partition: int, fence: int, records: Sequence[SweepRecord]) -> None:
        """See Books."""
        sweeps.wait(self._database, self._hold(partition, fence), self._passages(records))

    def waiting_sweeps(self, partition: int) -> Sequence[SweepRecord]:
        """See Books."""
        found = sweeps.waits(self._database, self._consumer, *self._topics.place(partition))
        return [SweepRecord(partition, offset, sweep) for offset, sweep in found]

    def pass_sweeps(self, records: Sequence[SweepRecord]) -> None:
        """See Books."""
        sweeps.passed(self._database, self._consumer, self._passages(records))

    def _hold(self, partition: int, fence: int) -> Hold:
        return Hold(self._consumer, *self._topics.place(partition), fence)

    def _places(self, partitions: Iterable[int]) -> list[tuple[str, int]]:
        return [self._topics.place(number) for number in partitions]

    def _passages(self, records: Sequence[SweepRecord]) -> list[Passage]:
        return [Passage(one.sweep, *self._topics.place(one.partition), one.offset) for one in records]
