"""How much one fetch of a bridge brings, on the real broker."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kafka import KafkaProducer, TopicPartition

from devstack.process import wait_until
from pipeline.bridge import consumer
from pipeline.bridge.client import Client
from pipeline.bridge.client_settings import READING
from pipeline.bridge.consumer import GroupMember
from pipeline.bridge.group_view import GroupView
from pipeline.bridge.topics import Topics

pytestmark = pytest.mark.integration
BUSY, OTHER = 0, 1
LARGE = 10_000  # bytes of a record


class Reader:
    """A client of two partitions from their start; each poll's records, by partition."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        places = [TopicPartition(topic, partition) for partition in (BUSY, OTHER)]
        self.client = Client(bootstrap_servers=bootstrap, group_id=topic, **READING)
        self.client.assign(places)
        for place in places:
            self.client.seek(place, 0)
        self.polls: list[dict[int, int]] = []

    def poll(self) -> bool:
        """One poll; True when it brought records."""
        found = {place.partition: len(batch) for place, batch in self.client.poll(200).items()}
        if found:
            self.polls.append(found)
        return bool(found)

    def got(self, partition: int) -> int:
        return sum(found.get(partition, 0) for found in self.polls)


@contextmanager
def reading(bootstrap: str, topic: str) -> Iterator[Reader]:
    reader = Reader(bootstrap, topic)
    try:
        yield reader
    finally:
        reader.client.close(autocommit=False)


def backlogged(bootstrap: str, topic: str, count: int) -> Topics:
    """A topic of which a group of its name has read nothing yet: so many records in one partition, none in the other."""
    topics = Topics((topic,), 2)
    view = GroupView(bootstrap, topics, topic)
    view.commit({BUSY: 0, OTHER: 0})
    view.close()
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for _ in range(count):
        producer.send(topic, b"x" * LARGE, partition=BUSY)
    producer.flush(20)
    producer.close()
    return topics


def test_a_backlog_comes_in_pieces_that_keep_no_other_partition_waiting_for_long(
    kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # Mutant: max_partition_fetch_bytes of 1 MiB.
    topic = kafka_topic(2)
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap)
    for _ in range(300):
        producer.send(topic, b"x" * LARGE, partition=BUSY)
    producer.flush(20)
    producer.close()
    with reading(kafka_bootstrap, topic) as reader:
        assert wait_until(lambda: reader.poll() and reader.got(BUSY) == 300, 20, pause=0)
        assert max(found[BUSY] for found in reader.polls) <= 256 * 1024 // LARGE + 1


def test_a_batch_larger_than_a_fetch_is_read_in_every_partition(
    kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # Such a batch comes whole, of one partition in each fetch; the broker begins with another each time.
    topic = kafka_topic(2)
    batches = KafkaProducer(bootstrap_servers=kafka_bootstrap, linger_ms=1000, batch_size=900_000)
    for _ in range(320):
        for partition in (BUSY, OTHER):
            batches.send(topic, b"x" * LARGE, partition=partition)
    batches.flush(20)
    batches.close()
    with reading(kafka_bootstrap, topic) as reader:
        assert wait_until(lambda: reader.poll() and reader.got(BUSY) == reader.got(OTHER) == 320, 20, pause=0)
        assert max(sum(found.values()) for found in reader.polls) > 256 * 1024 // LARGE + 1


def test_a_backlog_in_slices_does_not_wait_for_what_another_partition_has_not(
    kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # The broker may hold a fetch for 20 s. Mutant: fetches beside a partition with more are held for as long as others.
    topics = backlogged(kafka_bootstrap, kafka_topic(2), 300)
    member = GroupMember(
        kafka_bootstrap, topics, *topics.names, options={**READING, "fetch_max_wait_ms": 20_000}
    )
    got: list[int] = []

    def all_came() -> bool:
        polled = member.poll(0.1, 5)
        assert all(len(batch) <= 5 for batch in polled.records.values())
        got.extend(record.offset for batch in polled.records.values() for record in batch)
        return len(got) == 300

    try:
        assert wait_until(all_came, 18, pause=0)
        assert got == list(range(300))
    finally:
        member.close()


def test_what_is_kept_of_a_backlog_in_slices_does_not_grow(
    kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # Mutant: a partition that has slices left is read on in Kafka (order stays right, and all of it is in memory soon).
    topics = backlogged(kafka_bootstrap, kafka_topic(2), 600)
    member = GroupMember(kafka_bootstrap, topics, *topics.names)
    got: list[int] = []

    def hundred_came() -> bool:
        got.extend(record.offset for batch in member.poll(0.1, 1).records.values() for record in batch)
        return len(got) >= 100

    tracemalloc.start()
    try:
        assert wait_until(hundred_came, 20, pause=0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        member.close()
    assert got == list(range(100))
    assert held < 100 * LARGE


def test_a_poll_with_slices_left_asks_what_others_have_and_waits_for_the_answer(
    kafka_bootstrap: str, kafka_topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The answer would stay with the client until the next poll, and what came meanwhile until the one after. Mutants: it does not wait; it waits where nobody can be asked.
    topics = backlogged(kafka_bootstrap, kafka_topic(2), 20)
    (topic,) = topics.names
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap)
    member = GroupMember(kafka_bootstrap, topics, topic)
    try:
        assert wait_until(lambda: bool(member.poll(0.1, 1).records), 20, pause=0)
        waits: list[int] = []
        poll = Client.poll

        def noted(client: Client, timeout_ms: int) -> object:
            waits.append(timeout_ms)
            return poll(client, timeout_ms)

        monkeypatch.setattr(Client, "poll", noted)
        monkeypatch.setattr(consumer, "GLANCE", 15.0)  # its own is soon over on a slow machine
        producer.send(topic, b"y", partition=OTHER).get(20)
        assert member.poll(20, 1).records.keys() == {BUSY, OTHER}
        member.pause(frozenset({OTHER}))
        assert member.poll(20, 1).records.keys() == {BUSY}
        assert waits == [15_000, 0]
    finally:
        member.close()
        producer.close()
