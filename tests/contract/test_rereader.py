"""The promises of a reader beside the group, kept by the one in memory and by the one on the broker alike."""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from devstack.kafka.broker import Kafka
from devstack.private import own_site
from devstack.process import wait_until
from pipeline.bridge.client_settings import READING
from pipeline.bridge.reread import TopicRereader
from pipeline.bridge.topics import Topics
from pipeline.errors import PositionLostError, TransientError
from pipeline.ports import Rereader
from tests.fakes.kafka import MemoryKafka, MemoryRereader
from tests.integration.own_services import started_kafka

# Two topics that could have four partitions each; these are there.
FOUR = 4
A, B, ROWS = 0, 1, FOUR
ALL = (A, B, ROWS)
COUNT = 60


class Lab(Protocol):
    """What the suite needs: the reader under test, and a hand on its surroundings."""

    @property
    def reader(self) -> Rereader:
        """The reader under test."""

    def append(self, partition: int, count: int) -> None:
        """More records; the value of each tells its partition and offset."""

    def trim(self, partition: int, first: int) -> None:
        """Lose everything below `first` to retention."""


class MemoryLab:
    """In memory."""

    def __init__(self) -> None:
        self.kafka = MemoryKafka(2 * FOUR)
        self.reader = MemoryRereader(self.kafka, most=7)

    def append(self, partition: int, count: int) -> None:
        for _ in range(count):
            self.kafka.append(partition, b"6", f"{partition} {self.kafka.end(partition)}".encode())

    def trim(self, partition: int, first: int) -> None:
        self.kafka.begin[partition] = first


class KafkaLab:
    """On the broker; a fetch brings a few records of a partition."""

    def __init__(self, bootstrap: str, topics: Topics, admin: KafkaAdminClient) -> None:
        self._topics, self._admin = topics, admin
        self._producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", batch_size=200)
        self._ends = dict.fromkeys(ALL, 0)
        self.reader = TopicRereader(bootstrap, topics, options={**READING, "max_partition_fetch_bytes": 500})

    def append(self, partition: int, count: int) -> None:
        topic, own = self._topics.place(partition)
        for _ in range(count):
            value = f"{partition} {self._ends[partition]}".encode()
            self._producer.send(topic, key=b"6", value=value, partition=own)
            self._ends[partition] += 1
        self._producer.flush(10)

    def trim(self, partition: int, first: int) -> None:
        self._admin.delete_records({TopicPartition(*self._topics.place(partition)): first})

    def close(self) -> None:
        self.reader.close()
        self._producer.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three partitions of 60 records each."""
    if request.param == "memory":
        made: Lab = MemoryLab()
        for partition in ALL:
            made.append(partition, COUNT)
        yield made
        return
    topic, admin = request.getfixturevalue("kafka_topic"), request.getfixturevalue("kafka_admin")
    real = KafkaLab(request.getfixturevalue("kafka_bootstrap"), Topics((topic(2), topic(1)), FOUR), admin)
    for partition in ALL:
        real.append(partition, COUNT)
    try:
        yield real
    finally:
        real.close()


class Checked:
    """Reads, and checks each batch: it begins where the partition stood, has no gap, and is what was sent there."""

    def __init__(self, reader: Rereader, most: int | None = None) -> None:
        self.reader = reader
        self.most = most
        self.at: dict[int, int] = {}
        self.got: dict[int, list[int]] = {partition: [] for partition in ALL}
        self.paused: frozenset[int] = frozenset()

    def seek(self, partition: int, offset: int) -> None:
        self.reader.seek(partition, offset)
        self.at[partition] = offset

    def drop(self, partition: int) -> None:
        self.reader.drop(partition)
        del self.at[partition]

    def pause(self, *partitions: int) -> None:
        self.paused = frozenset(partitions)
        self.reader.pause(self.paused)

    def poll(self, timeout: float = 0.1) -> None:
        for partition, records in self.reader.poll(timeout, self.most).items():
            assert partition in self.at
            assert self.most is None or len(records) <= self.most
            assert partition not in self.paused
            offsets = [record.offset for record in records]
            assert offsets == list(range(self.at[partition], self.at[partition] + len(offsets)))
            assert [record.value for record in records] == [f"{partition} {at}".encode() for at in offsets]
            self.at[partition] += len(offsets)
            self.got[partition] += offsets
        assert {partition: self.reader.position(partition) for partition in self.at} == self.at

    def until(self, done: Callable[[], bool]) -> None:
        def reached() -> bool:
            self.poll()
            return done()

        assert wait_until(reached, 20, pause=0)

    def until_ends(self, *partitions: int, end: int = COUNT) -> None:
        self.until(lambda: all(self.at[partition] == end for partition in partitions))


@pytest.fixture(params=[None, 3], ids=["whole", "in slices"])
def checked(lab: Lab, request: pytest.FixtureRequest) -> Checked:
    return Checked(lab.reader, request.param)


def test_a_seek_begins_to_read_there_and_goes_on(lab: Lab, checked: Checked) -> None:
    checked.seek(A, 50)
    checked.until_ends(A)
    lab.append(A, 3)
    checked.until_ends(A, end=COUNT + 3)
    assert checked.got == {A: list(range(50, COUNT + 3)), B: [], ROWS: []}


def test_the_position_is_known_at_once(checked: Checked) -> None:
    checked.reader.seek(A, 5)
    assert checked.reader.position(A) == 5
    checked.reader.seek(A, 3)
    assert checked.reader.position(A) == 3


def test_several_partitions_are_read_at_once(checked: Checked) -> None:
    for partition in ALL:
        checked.seek(partition, 10 * partition)
    checked.until_ends(*ALL)
    assert {partition: offsets[0] for partition, offsets in checked.got.items()} == {A: 0, B: 10, ROWS: 40}


@pytest.mark.parametrize("to", [0, 20, 58])
def test_after_a_seek_comes_nothing_of_before_it(checked: Checked, to: int) -> None:
    # Mutant: seek() that is not told to the client once the partition is read; the batch on its way is delivered.
    checked.seek(A, 5)
    checked.until(lambda: checked.at[A] > 5)
    checked.seek(A, to)
    checked.until_ends(A)
    assert checked.got[A][-(COUNT - to) :] == list(range(to, COUNT))


def test_exactly_the_partitions_named_last_are_paused(checked: Checked) -> None:
    checked.seek(A, 0)
    checked.seek(B, 0)
    checked.pause(A)
    checked.until_ends(B)
    assert checked.got[A] == []
    checked.pause(B)
    checked.until_ends(A)


def test_a_pause_lasts_over_a_seek(checked: Checked) -> None:
    checked.seek(A, 0)
    checked.until(lambda: checked.at[A] > 0)
    checked.pause(A)
    checked.seek(A, 30)
    checked.seek(B, 0)
    checked.until_ends(B)
    assert checked.at[A] == 30


def test_what_is_dropped_is_read_no_more_and_can_be_sought_again(checked: Checked) -> None:
    checked.seek(A, 0)
    checked.seek(B, 0)
    checked.until(lambda: checked.at[A] > 0)
    checked.drop(A)
    checked.until_ends(B)
    checked.seek(A, 2)
    checked.until_ends(A)


def test_nothing_to_read_brings_nothing(checked: Checked) -> None:
    assert checked.reader.poll(0.1) == {}
    checked.seek(A, 0)
    checked.pause(A)
    assert checked.reader.poll(0.1) == {}
    checked.pause()
    checked.drop(A)
    assert checked.reader.poll(0.1) == {}


def test_a_position_that_passed_retention_is_named_and_the_others_go_on(lab: Lab, checked: Checked) -> None:
    # Mutant: the error as the client has it, without the first offset that is left.
    lab.trim(A, 40)
    checked.seek(A, 30)
    checked.seek(B, 0)
    first: dict[int, int] = {}

    def lost() -> bool:
        try:
            checked.poll()
        except PositionLostError as error:
            first.update(error.first)
            assert "passed retention" in error.what
        return bool(first)

    assert wait_until(lost, 20, pause=0)
    assert first == {A: 40}
    checked.drop(A)
    checked.until_ends(B)
    checked.seek(A, 40)
    checked.until_ends(A)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_sought_paused_and_dropped_each_batch_begins_where_its_partition_stands(
    checked: Checked, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        act = chance.choice(["seek", "seek", "drop", "pause", "poll", "poll"])
        partition = chance.choice(ALL)
        if act == "seek":
            checked.seek(partition, chance.randrange(COUNT))
        elif act == "drop" and partition in checked.at:
            checked.drop(partition)
        elif act == "pause":
            checked.pause(*chance.sample(ALL, chance.randrange(3)))
        for _ in range(chance.randrange(4)):
            checked.poll(0.0)
    checked.pause()
    for partition in ALL:
        checked.seek(partition, chance.randrange(COUNT))
    checked.until_ends(*ALL)


def ended(kafka: Kafka) -> None:
    pid = kafka.running()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: kafka.running() is None, 10)


@pytest.mark.integration
def test_while_kafka_is_away_nothing_is_lost_and_opening_says_so(tmp_path: Path) -> None:
    with own_site(tmp_path / "stack") as place:
        kafka = started_kafka(place)
        bootstrap = f"127.0.0.1:{kafka.port}"
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        admin.create_topics({"t": {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
        admin.close()
        lab = KafkaLab(bootstrap, Topics(("t",), 1), admin)
        late = TopicRereader(bootstrap, Topics(("t",), 1))
        checked = Checked(lab.reader)
        try:
            lab.append(A, 30)
            checked.seek(A, 0)
            checked.until(lambda: checked.at[A] > 0)
            ended(kafka)
            late.seek(A, 3)
            with pytest.raises(TransientError):
                late.poll(0.1)
            for _ in range(10):
                checked.poll()
            started_kafka(place)
            checked.until_ends(A, end=30)
            assert wait_until(lambda: A in late.poll(0.1), 20)
        finally:
            late.close()
            lab.close()


def test_in_memory_an_outage_raises_and_moves_nothing() -> None:
    lab = MemoryLab()
    lab.append(A, 1)
    lab.reader.seek(A, 0)
    lab.kafka.available = False
    with pytest.raises(TransientError):
        lab.reader.poll(0.1)
    lab.kafka.available = True
    assert lab.reader.poll(0.1)[A][0].offset == 0


def test_a_reader_with_nothing_to_read_opens_no_connection() -> None:
    # Mutant: poll() that opens the client whatever there is to read; here it would find no broker and raise.
    reader = TopicRereader("127.0.0.1:1", Topics(("t",), 1), options={**READING, "bootstrap_timeout_ms": 200})
    reader.seek(A, 0)
    reader.pause(frozenset({A}))
    assert reader.poll(0.1) == {}
    reader.drop(A)
    reader.pause(frozenset())
    assert reader.poll(0.1) == {}
    reader.close()


def test_a_client_that_finds_no_broker_leaves_no_thread_behind() -> None:
    # Mutant: Client() as the library has it; each attempt of an outage leaves its thread and its sockets.
    reader = TopicRereader("127.0.0.1:1", Topics(("t",), 1), options={**READING, "bootstrap_timeout_ms": 200})
    before = threading.active_count()
    reader.seek(A, 0)
    with pytest.raises(TransientError):
        reader.poll(0.1)
    assert threading.active_count() == before
