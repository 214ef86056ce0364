"""How often a poll waits for the Kafka client's loop, on the real broker, and when it asks for more.

Each test also runs the client as it comes. What it counts there is what the cure in ``pipeline/bridge/client.py`` is for.
"""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ExceptionMetadata
from kafka.errors import CorruptRecordError, TopicAuthorizationFailedError

from devstack.process import wait_until
from pipeline.bridge.client import Client
from pipeline.bridge.client_settings import READING

pytestmark = pytest.mark.integration
ROUNDS = 20


class Counted:
    """A client of two partitions, one of them empty, and how often it waited for its loop."""

    def __init__(self, kind: Callable[..., Any], bootstrap: str, topic: str) -> None:
        options = {**READING, "fetch_max_wait_ms": 20_000}  # a fetch is answered by records
        self.client = kind(bootstrap_servers=bootstrap, group_id=topic, **options)
        self.place = TopicPartition(topic, 0)
        assert wait_until(lambda: bool(self.client.partitions_for_topic(topic)), 20)
        self.client.assign([self.place, TopicPartition(topic, 1)])
        for place in self.client.assignment():
            self.client.seek(place, 0)
        self.offsets: list[int] = []
        assert wait_until(
            lambda: self.client.poll(200) or self.client._coordinator.coordinator_id is not None, 20
        )
        self.client.seek(self.place, 0)
        self.waits = 0
        run = self.client._net.run

        def counted(*given: Any) -> Any:
            self.waits += 1
            return run(*given)

        self.client._net.run = self.client._manager.run = counted

    def poll(self) -> bool:
        """One poll; True when it brought records."""
        found = [record.offset for batch in self.client.poll(1000).values() for record in batch]
        self.offsets += found
        return bool(found)


THREADLESS = partial(Client, threadless=True)


@pytest.fixture(params=[THREADLESS, Client, KafkaConsumer], ids=["threadless", "ours", "as it comes"])
def counted(
    request: pytest.FixtureRequest, kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> Iterator[Counted]:
    made = Counted(request.param, kafka_bootstrap, kafka_topic(2))
    yield made
    made.client.close(autocommit=False)


@pytest.fixture
def producer(kafka_bootstrap: str) -> Iterator[KafkaProducer]:
    made = KafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all")
    yield made
    made.close()


def fetched(counted: Counted, producer: KafkaProducer) -> None:
    """A poll that finds nothing sends a fetch, which a record answers; nobody has looked at it yet."""
    counted.client.poll(0)
    producer.send(counted.place.topic, b"x", partition=0).get(10)
    assert wait_until(lambda: bool(counted.client._fetcher._completed_fetches), 20)


def test_a_poll_waits_once_or_not_at_all_when_records_are_there(
    counted: Counted, producer: KafkaProducer
) -> None:
    # Mutants: the coordinator is looked for in each poll; records wait until the next fetch is sent.
    for _ in range(ROUNDS):
        fetched(counted, producer)
        assert counted.poll()
    assert counted.offsets == list(range(ROUNDS))
    ours = isinstance(counted.client, Client)
    assert (counted.waits <= ROUNDS) is ours, counted.waits


def test_records_that_came_between_looking_and_waiting_are_not_waited_for(
    kafka_bootstrap: str, kafka_topic: Callable[..., str], producer: KafkaProducer
) -> None:
    # Mutant: _answered() that does not look at what has been fetched: it waits for the other partition's fetch.
    counted = Counted(Client, kafka_bootstrap, kafka_topic(2))
    fetched(counted, producer)
    assert counted.poll()
    fetched(counted, producer)  # the broker's second answer says nothing of the other partition
    fetcher = counted.client._fetcher
    waited, look, wait_for = [], fetcher.fetched_records, fetcher._manager.wait_for

    def too_early(*given: Any, **named: Any) -> Any:
        fetcher.fetched_records = look
        return {}, False

    async def noted(*given: Any) -> Any:
        waited.append(given)
        return await wait_for(*given)

    fetcher.fetched_records, fetcher._manager.wait_for = too_early, noted
    assert counted.poll()
    assert waited == []
    counted.client.close(autocommit=False)


def test_what_stops_fetches_is_said_by_a_poll(kafka_bootstrap: str, kafka_topic: Callable[..., str]) -> None:
    # Mutant: what sending them raised is dropped in _answered().
    counted = Counted(Client, kafka_bootstrap, kafka_topic(2))

    async def refused() -> None:
        raise TopicAuthorizationFailedError

    counted.client._fetcher._send_fetches_async = refused
    with pytest.raises(TopicAuthorizationFailedError):
        counted.poll()
    counted.client.close(autocommit=False)


def test_what_came_since_the_last_records_comes_together(counted: Counted, producer: KafkaProducer) -> None:
    # Mutant: the next fetch is sent when records are handed out. The first record that comes answers it.
    fetched(counted, producer)
    assert counted.poll()
    for _ in range(2):
        producer.send(counted.place.topic, b"x", partition=0).get(10)
    assert counted.poll()
    assert (counted.offsets == [0, 1, 2]) is isinstance(counted.client, Client), counted.offsets


def test_a_record_that_cannot_be_read_is_said_also_of_a_paused_partition(
    kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # Mutant: _raise_failure() that looks at nothing. The client notes it as here, behind records that it hands out.
    counted = Counted(Client, kafka_bootstrap, kafka_topic(2))
    counted.client._fetcher._next_in_line_exception_metadata = ExceptionMetadata(
        counted.place, 0, CorruptRecordError("crc")
    )
    counted.client.pause(counted.place)
    with pytest.raises(CorruptRecordError):
        counted.poll()
    counted.client.close(autocommit=False)


def test_a_poll_with_nothing_to_fetch_waits_inside_the_loop(
    kafka_bootstrap: str, kafka_topic: Callable[..., str], producer: KafkaProducer
) -> None:
    # Mutants: _answered() that returns at once where there is nothing to wait for; _fetch_records() that says it was idle then,
    # so that the client sleeps outside. Heartbeats and connections are what ticks here; while it sleeps nothing does, or a thread.
    counted = Counted(THREADLESS, kafka_bootstrap, kafka_topic(2))
    client, fetcher, net = counted.client, counted.client._fetcher, counted.client._net
    fetched(counted, producer)
    assert counted.poll()
    assert all(fetch.is_done for fetch in fetcher._fetch_futures)
    client.pause(*client.assignment())
    ticks = rounds = 0
    fetch_records = fetcher.fetch_records

    def tick() -> None:
        nonlocal ticks
        ticks += threading.current_thread() is threading.main_thread()
        net.call_later(0.005, tick)

    def counts(*given: Any, **named: Any) -> Any:
        nonlocal rounds
        rounds += 1
        return fetch_records(*given, **named)

    fetcher.fetch_records = counts
    net.call_soon(tick)
    client.poll(500)
    assert ticks > 3 * rounds > 0, (ticks, rounds)
    client.close(autocommit=False)
