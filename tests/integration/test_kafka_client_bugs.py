"""The Kafka client's bugs that would stop a consumer, on the real broker: our settings are their cure.

Each test also runs the client with its default settings. When it passes there, the bug is gone and the cure may go.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.bridge.client_settings import READING
from pipeline.bridge.consumer import UNASSIGNED_AFTER, GroupMember
from pipeline.bridge.group_view import GroupView
from pipeline.bridge.topics import Topics
from tests.conftest import coordinated

pytestmark = pytest.mark.integration
CURED: Mapping[str, Any] = READING
BUSY, OTHER = 0, 1


class Reader:
    """A consumer of two partitions from their start, and how much it got of each."""

    def __init__(self, bootstrap: str, topic: str, options: Mapping[str, Any]) -> None:
        self.places = [TopicPartition(topic, partition) for partition in (BUSY, OTHER)]
        self.consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=topic, **options)
        self.consumer.assign(self.places)
        for place in self.places:
            self.consumer.seek(place, 0)
        self.got = {BUSY: 0, OTHER: 0}

    def poll(self, milliseconds: int = 200) -> dict[int, int]:
        """One poll: how many records of each partition."""
        found = {place.partition: len(batch) for place, batch in self.consumer.poll(milliseconds).items()}
        for partition, count in found.items():
            self.got[partition] += count
        return found

    def gets(self, wanted: Mapping[int, int], seconds: float) -> bool:
        """Poll until that much has come; False when the time is over."""

        def arrived() -> bool:
            self.poll()
            return all(self.got[partition] >= count for partition, count in wanted.items())

        return wait_until(arrived, seconds, pause=0)


@contextmanager
def reading(bootstrap: str, topic: str, options: Mapping[str, Any]) -> Iterator[Reader]:
    reader = Reader(bootstrap, topic, options)
    try:
        yield reader
    finally:
        reader.consumer.close(autocommit=False)


def produce(bootstrap: str, topic: str, counts: Mapping[int, int], size: int) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    for partition, count in counts.items():
        for _ in range(count):
            producer.send(topic, b"x" * size, partition=partition)
    producer.flush(20)
    producer.close()


def paused_and_resumed(reader: Reader, each: int) -> bool:
    """Pause the partition that came first, read the other to its end, resume: does the first go on?"""
    found: dict[int, int] = {}
    while not found:
        found = reader.poll()
    first = next(iter(found))
    other = OTHER if first == BUSY else BUSY
    reader.consumer.pause(reader.places[first])
    assert reader.gets({other: each}, 20)
    for _ in range(5):
        reader.poll()
    reader.consumer.resume(reader.places[first])
    return reader.gets({first: each}, 5)


@pytest.mark.parametrize(
    ("options", "reads_on"), [(CURED, True), ({**CURED, "max_poll_records": 10}, False)], ids=["cured", "bug"]
)
def test_b1_a_partition_that_was_paused_half_drained_is_read_again(
    kafka_bootstrap: str, kafka_topic: Callable[..., str], options: Mapping[str, Any], reads_on: bool
) -> None:
    topic = kafka_topic(2)
    produce(kafka_bootstrap, topic, {BUSY: 100, OTHER: 100}, size=10)
    with reading(kafka_bootstrap, topic, options) as reader:
        assert paused_and_resumed(reader, 100) is reads_on


@pytest.mark.parametrize(
    ("options", "flows"), [(CURED, True), ({**CURED, "max_poll_records": 100}, False)], ids=["cured", "bug"]
)
def test_b4_an_idle_partition_does_not_starve_a_busy_one(
    kafka_bootstrap: str, kafka_topic: Callable[..., str], options: Mapping[str, Any], flows: bool
) -> None:
    # The broker may hold a fetch for 20 s, so that waiting for it even once is seen.
    topic = kafka_topic(2)
    produce(kafka_bootstrap, topic, {BUSY: 6000}, size=1000)
    with reading(kafka_bootstrap, topic, {**options, "fetch_max_wait_ms": 20_000}) as reader:
        assert reader.gets({BUSY: 6000}, 10) is flows


def test_a_member_whose_client_stalls_gets_a_new_one(
    kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # Mutant: poll() that never looks for a stall; the cause is B1.
    topic = kafka_topic(2)
    topics = Topics((topic,), 2)
    produce(kafka_bootstrap, topic, {BUSY: 100, OTHER: 100}, size=10)
    view = GroupView(kafka_bootstrap, topics, topic)
    view.commit({BUSY: 0, OTHER: 0})
    view.close()
    member = GroupMember(
        kafka_bootstrap, topics, topic, options={**READING, "max_poll_records": 10}, stalled_after=1.0
    )
    got: dict[int, set[int]] = {BUSY: set(), OTHER: set()}

    def got_all(*partitions: int) -> bool:
        for partition, records in member.poll(0.1).records.items():
            got[partition] |= {record.offset for record in records}
        return all(len(got[partition]) == 100 for partition in partitions)

    try:
        assert wait_until(lambda: got_all() and any(got.values()), 20)
        first = BUSY if got[BUSY] else OTHER
        member.pause(frozenset({first}))
        assert wait_until(lambda: got_all(BUSY + OTHER - first), 20)
        member.pause(frozenset())
        assert wait_until(lambda: got_all(BUSY, OTHER), 30)
    finally:
        member.close()


def members(bootstrap: str, group: str) -> set[str]:
    """The ids that a group's members have from its coordinator; a new client gets a new one."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        described = coordinated(lambda: admin.describe_groups([group]))[group]
        return {member["member_id"] for member in described["members"]}
    finally:
        admin.close()


def test_a_member_that_stays_without_partitions_gets_a_new_client(
    kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # Mutant: poll() that never asks _forgotten(). An assignment lost by the client looks from inside like having none.
    topic = kafka_topic(1)
    topics = Topics((topic,), 1)
    view = GroupView(kafka_bootstrap, topics, topic)
    view.commit({BUSY: 0})
    view.close()
    now = [0.0]
    owner = GroupMember(kafka_bootstrap, topics, topic)
    idle = GroupMember(kafka_bootstrap, topics, topic, clock=lambda: now[0])
    try:
        assert wait_until(lambda: owner.poll(0.1).assigned == {BUSY}, 20)

        def both() -> bool:
            owner.poll(0.1)
            idle.poll(0.1)
            return len(members(kafka_bootstrap, topic)) == 2

        assert wait_until(both, 20)
        before = members(kafka_bootstrap, topic)
        now[0] += UNASSIGNED_AFTER
        assert wait_until(lambda: both() and members(kafka_bootstrap, topic) != before, 20)
        owner.close()
        assert wait_until(lambda: BUSY in idle.poll(0.1).assigned, 20)
    finally:
        owner.close()
        idle.close()
