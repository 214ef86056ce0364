"""What a bridge writes to the control database: fences, what belongs to no lane, sweeps that it has passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.bridge.offsets import SweepRecord
from pipeline.bridge.topics import Topics
from pipeline.consumer import Rejection
from pipeline.control import fences, rejected, sweeps
from pipeline.control.database import ControlDatabase


class Bookkeeping:
    """One consumer's, by the numbers of its partitions. Each call may be repeated; TransientError as the database has it."""

    def __init__(self, database: ControlDatabase, consumer: str, topics: Topics) -> None:
        self._database = database
        self._consumer = consumer
        self._topics = topics

    def draw_fences(self, numbers: Iterable[int]) -> Mapping[int, int]:
        """The next fence of each partition."""
        drawn: dict[int, int] = {}
        places = [self._topics.place(number) for number in numbers]
        for topic in sorted({place.topic for place in places}):
            partitions = [place.partition for place in places if place.topic == topic]
            found = fences.draw(self._database, self._consumer, topic, partitions)
            drawn |= {self._topics.number(topic, partition): fence for partition, fence in found.items()}
        return drawn

    def set_aside(self, rejections: Sequence[Rejection]) -> None:
        """Store what belongs to no lane; again: changes nothing."""
        names = self._topics.names
        rejected.store(self._database, self._consumer, (names[0], names[-1]), rejections)

    def pass_sweeps(self, records: Sequence[SweepRecord]) -> None:
        """The sink has accepted everything before these records; again: changes nothing."""
        passages = [
            sweeps.Passage(one.sweep, *self._topics.place(one.partition), one.offset) for one in records
        ]
        sweeps.passed(self._database, self._consumer, passages)
