"""One consumer group of two topics with a partition each, in memory or on the real broker, for the contract suites."""

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from kafka import KafkaProducer

from devstack.process import wait_until
from pipeline.bridge.consumer import GroupMember
from pipeline.bridge.group_view import GroupView
from pipeline.bridge.topics import Topics
from pipeline.ports import Offsets, RecordSource
from tests.fakes.kafka import MemoryKafka, MemoryMember

# The numbers of the two partitions, of topics that could have four each.
FOUR = 4
CHANGES, ROWS = 0, FOUR
BOTH = frozenset({CHANGES, ROWS})


class Member(RecordSource, Offsets, Protocol):
    """Both ports, as both implementations offer them."""


class Group(Protocol):
    """What the suites need: the member they test, and a hand on its surroundings."""

    @property
    def member(self) -> Member:
        """The member under test."""

    def append(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Put a record on the topic."""

    def take_away(self) -> None:
        """Let a second member take a partition; the first must go on polling for it to happen."""

    def wait(self, done: Callable[[], bool]) -> None:
        """Return once `done()`, within seconds."""


class MemoryGroup:
    """In memory."""

    def __init__(self) -> None:
        self.kafka = MemoryKafka(2 * FOUR)
        self.kafka.positions = dict.fromkeys(BOTH, 0)
        self.member = MemoryMember(self.kafka)
        for partition in BOTH:
            self.kafka.give(partition, self.member)

    def append(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        self.kafka.append(partition, key, value)

    def take_away(self) -> None:
        self.kafka.give(ROWS, MemoryMember(self.kafka))

    def wait(self, done: Callable[[], bool]) -> None:
        assert any(done() for _ in range(10))


class KafkaGroup:
    """On the broker."""

    def __init__(self, bootstrap: str, topics: Topics) -> None:
        self._bootstrap, self._topics, self._group = bootstrap, topics, topics.names[0]
        self._producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
        view = GroupView(bootstrap, topics, self._group)
        view.commit(dict.fromkeys(BOTH, 0))
        view.close()
        self.member = GroupMember(bootstrap, topics, self._group)
        self._stop = threading.Event()
        self._other: threading.Thread | None = None

    def append(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        topic, own = self._topics.place(partition)
        self._producer.send(topic, key=key, value=value, partition=own).get(10)

    def take_away(self) -> None:
        self._other = threading.Thread(target=self._poll_as_second_member)
        self._other.start()

    def _poll_as_second_member(self) -> None:
        second = GroupMember(self._bootstrap, self._topics, self._group)
        while not self._stop.is_set():
            second.poll(0.1)
        second.close()

    def wait(self, done: Callable[[], bool]) -> None:
        assert wait_until(done, 20)

    def close(self) -> None:
        self._stop.set()
        if self._other is not None:
            self._other.join()
        self.member.close()
        self._producer.close()


def groups(request: pytest.FixtureRequest) -> Iterator[Group]:
    """The group that the fixture's parameter names."""
    if request.param == "memory":
        yield MemoryGroup()
        return
    bootstrap, topic = request.getfixturevalue("kafka_bootstrap"), request.getfixturevalue("kafka_topic")
    group = KafkaGroup(bootstrap, Topics((topic(1), topic(1)), FOUR))
    try:
        yield group
    finally:
        group.close()
