"""The producer's side of Kafka on a real broker, and the client's bugs that decide how it is used."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from devstack.process import wait_until
from pipeline.capture.oversize import LIMIT
from pipeline.capture.publisher import OUTSTANDING, Publisher, PublishError, StoppedError
from pipeline.capture.topics import check_topic, ensure_topic
from pipeline.domain.routing import partition_of
from pipeline.settings import Deployment, Topic
from tests.conftest import unique
from tests.integration.kafka_topic import proxied, read_topic

pytestmark = pytest.mark.integration

Topics = Callable[..., str]


@contextmanager
def producing(bootstrap: str, **options: object) -> Iterator[KafkaProducer]:
    """A producer with the bugs that are shown here; `close` may fail or hang, so its thread is told to end first."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, **options)
    try:
        yield producer
    finally:
        end(producer)


def end(producer: KafkaProducer) -> None:
    """What no process needs to do that simply exits: end a failed producer's thread, which would reconnect for ever."""
    producer._sender.force_close()
    producer._sender.join(10)
    assert not producer._sender.is_alive()
    producer._closed = True
    producer._unregister_cleanup()


@contextmanager
def publishing(bootstrap: str, topic: str, partitions: int = 1, **options: object) -> Iterator[Publisher]:
    publisher = Publisher(bootstrap, topic, partitions, client_id="test", **options)  # type: ignore[arg-type]
    try:
        yield publisher
    finally:
        publisher.close()
        end(publisher._producer)


def never() -> bool:
    return False


def test_records_stand_in_order_under_their_merchants_partition(
    kafka_bootstrap: str, kafka_topic: Topics
) -> None:
    topic = kafka_topic(4)
    with publishing(kafka_bootstrap, topic, 4) as publisher:
        for number in range(3 * OUTSTANDING):
            publisher.send(str(number % 7), b"%d" % number)
            if publisher.full:
                publisher.settle(never, keep=OUTSTANDING // 2)
        publisher.settle(never)
    records = read_topic(kafka_bootstrap, topic)
    assert len(records) == 3 * OUTSTANDING
    assert all(record.partition == partition_of(record.key.decode(), 4) for record in records)
    for partition in range(4):
        numbers = [int(record.value) for record in records if record.partition == partition]
        assert numbers == sorted(numbers)


def test_a_record_of_the_largest_size_goes_through(kafka_bootstrap: str, kafka_topic: Topics) -> None:
    topic = kafka_topic(1)
    with publishing(kafka_bootstrap, topic) as publisher:
        publisher.send("m" * 64, os.urandom(LIMIT))
        publisher.settle(never)
    assert [len(record.value) for record in read_topic(kafka_bootstrap, topic)] == [LIMIT]


def test_a_record_beyond_it_is_refused_before_it_can_do_harm(
    kafka_bootstrap: str, kafka_topic: Topics
) -> None:
    """B3, the first half: as long as max_request_size is the default, the client itself refuses, and stays usable."""
    topic = kafka_topic(1)
    with producing(kafka_bootstrap) as producer:
        with pytest.raises(MessageSizeTooLargeError):
            producer.send(topic, b"x" * 1024 * 1024, partition=0)
        producer.send(topic, b"still usable", partition=0).get(timeout=10)


def test_a_record_the_broker_refuses_ends_the_producer(kafka_bootstrap: str, kafka_topic: Topics) -> None:
    """B3, the second half: afterwards the producer fails for every partition; so it is never used again."""
    narrow, other = kafka_topic(1, **{"max.message.bytes": "1000"}), kafka_topic(1)
    with producing(kafka_bootstrap) as producer:
        producer.send(other, b"usable", partition=0).get(timeout=10)
        for topic, size in ((narrow, 5000), (other, 1)):
            with pytest.raises(KafkaError):
                producer.send(topic, os.urandom(size), partition=0).get(timeout=10)

    with publishing(kafka_bootstrap, narrow) as publisher:
        publisher.send("6", os.urandom(5000))
        with pytest.raises(PublishError):
            publisher.settle(never)


def test_an_idempotent_producer_hangs_for_ever_past_its_delivery_timeout(
    kafka_bootstrap: str, kafka_topic: Topics
) -> None:
    """B2: futures of a lost batch may never resolve, and later sends hang; hence a timeout of a day and our own patience.

    When this fails the client has been mended: see whether the publisher can be simpler.
    """
    topic = kafka_topic(1)
    short = {"linger_ms": 0, "delivery_timeout_ms": 1500, "request_timeout_ms": 1000}
    with proxied() as proxy, producing(kafka_bootstrap, proxy_url=proxy.url, **short) as producer:
        producer.send(topic, b"before", partition=0).get(timeout=10)
        proxy.deaf.set()
        lost = [producer.send(topic, b"%d" % number, partition=0) for number in range(10)]
        resolved = wait_until(lambda: all(future.is_done for future in lost), 4)
        assert not resolved or all(future.failed() for future in lost)
        proxy.deaf.clear()
        with pytest.raises(KafkaTimeoutError):
            producer.send(topic, b"after", partition=0).get(timeout=4)


def test_silence_ends_the_publisher_and_a_stop_ends_the_wait(
    kafka_bootstrap: str, kafka_topic: Topics
) -> None:
    # Mutant: without the publisher's own patience settle waits for the delivery timeout of a day.
    topic = kafka_topic(1)
    with (
        proxied() as proxy,
        publishing(kafka_bootstrap, topic, patience=1.0, proxy_url=proxy.url) as publisher,
    ):
        publisher.send("6", b"before")
        publisher.settle(never)
        proxy.deaf.set()
        publisher.send("6", b"lost")
        stop = threading.Event()
        stop.set()
        with pytest.raises(StoppedError):
            publisher.settle(stop.is_set)
        with pytest.raises(PublishError, match="acknowledged nothing"):
            publisher.settle(never)


def test_the_topic_is_made_once_and_compared(kafka_bootstrap: str, kafka_admin: object) -> None:
    deployment = Deployment(
        name="t",
        datastream=Topic(topic=unique("topic"), partitions=3),
        replication_factor=1,
        min_insync_replicas=1,
    )
    try:
        assert "does not exist" in check_topic(kafka_bootstrap, deployment)[0]
        assert len(ensure_topic(kafka_bootstrap, deployment)) == 1
        assert ensure_topic(kafka_bootstrap, deployment) == []
        assert check_topic(kafka_bootstrap, deployment) == []
        other = deployment.model_copy(
            update={
                "datastream": Topic(topic=deployment.datastream.topic, partitions=4, retention="1h"),
                "replication_factor": 3,
            }
        )
        partitions, replicas, retention = check_topic(kafka_bootstrap, other)
        assert "3 partitions, not 4" in partitions and "1 replicas, not 3" in replicas
        assert "retention.ms is 604800000, not 3600000" in retention
    finally:
        kafka_admin.delete_topics([deployment.datastream.topic])  # type: ignore[attr-defined]
