"""A consumer's topics, their partitions numbered through, so that everything but the Kafka client counts plain integers.

Of two topics with n partitions each, 0 to n - 1 are the first one's (changes), n to 2n - 1 the second one's (the rows that
snapshots read). A merchant's partition is ``number % n`` in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pipeline.errors import PermanentError
from pipeline.settings import Settings


class Place(NamedTuple):
    """A partition as Kafka names it."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of equally many partitions."""

    names: tuple[str, ...]
    partitions: int

    @classmethod
    def of(cls, settings: Settings, consumer: str) -> Topics:
        """Those that a consumer reads."""
        topics = settings.topics_of(consumer)
        return cls(tuple(topic.topic for topic in topics), topics[0].partitions)

    @property
    def numbers(self) -> range:
        """Every partition."""
        return range(len(self.names) * self.partitions)

    def number(self, topic: str, partition: int) -> int:
        """The number of a partition; PermanentError for one that pipeline.toml does not know, whose number another has."""
        if partition >= self.partitions:
            raise PermanentError(
                f"topic {topic} has partition {partition}, pipeline.toml says {self.partitions} partitions",
                hint="partitions can never be added: merchants are spread by their number",
            )
        return self.names.index(topic) * self.partitions + partition

    def place(self, number: int) -> Place:
        """The partition of a number."""
        return Place(self.names[number // self.partitions], number % self.partitions)
