"""kafka-python's bugs that decide how it is used, and the topics as they are made and compared."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from devstack.process import wait_until
from pipeline.capture.kafka_python import KafkaPythonProducer
from pipeline.capture.publisher import Publisher, PublishError, StoppedError
from pipeline.capture.topics import check_topics, ensure_topics, topics_of
from pipeline.settings import Deployment, Topic
from tests.conftest import unique
from tests.integration.kafka_topic import ended, proxied

pytestmark = pytest.mark.integration

Topics = Callable[..., str]


@contextmanager
def producing(bootstrap: str, **options: object) -> Iterator[KafkaProducer]:
    """A producer with the bugs that are shown here; `close` may fail or hang, so its thread is told to end first."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, **options)
    try:
        yield producer
    finally:
        ended(producer)


def never() -> bool:
    return False


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
    with proxied() as proxy:
        producer = KafkaPythonProducer(kafka_bootstrap, client_id="test", proxy_url=proxy.url)
        try:
            publisher = Publisher(producer, {topic: 1}, patience=1.0)
            publisher.send(topic, "6", b"before")
            publisher.settle(never)
            proxy.deaf.set()
            publisher.send(topic, "6", b"lost")
            with pytest.raises(StoppedError):
                publisher.settle(lambda: True)
            with pytest.raises(PublishError, match="acknowledged nothing"):
                publisher.settle(never)
        finally:
            ended(producer._client)


@pytest.fixture
def deployment(kafka_bootstrap: str, kafka_admin: KafkaAdminClient) -> Iterator[Deployment]:
    """A deployment whose topics are deleted afterwards."""
    name = unique("topic")
    made = Deployment(
        name="t",
        datastream=Topic(topic=name, partitions=3),
        eventstream=Topic(topic=f"{name}.events", partitions=2),
        replication_factor=1,
        min_insync_replicas=1,
    )
    yield made
    kafka_admin.delete_topics([topic.topic for topic in topics_of(made)])


def test_the_topics_are_made_once_and_compared(kafka_bootstrap: str, deployment: Deployment) -> None:
    assert ["does not exist" in problem for problem in check_topics(kafka_bootstrap, deployment)] == [
        True
    ] * 4
    assert len(ensure_topics(kafka_bootstrap, deployment)) == 4
    assert ensure_topics(kafka_bootstrap, deployment) == []
    assert check_topics(kafka_bootstrap, deployment) == []
    changed = Topic(topic=deployment.datastream.topic, partitions=4, retention="1h")
    other = deployment.model_copy(update={"datastream": changed, "replication_factor": 3})
    problems = check_topics(kafka_bootstrap, other)
    assert sum("3 partitions, not 4" in problem for problem in problems) == 2
    assert sum("1 replicas, not 3" in problem for problem in problems) == 4
    assert sum("retention.ms is 604800000, not 3600000" in problem for problem in problems) == 2


@pytest.mark.parametrize(
    ("which", "setting", "value"),
    [
        (0, "retention.bytes", "1000000"),
        (0, "unclean.leader.election.enable", "true"),
        (1, "cleanup.policy", "compact"),
        (2, "message.timestamp.type", "LogAppendTime"),
        (3, "cleanup.policy", "delete"),
    ],
)
def test_a_setting_that_would_lose_or_reorder_is_refused_with_its_remedy(
    kafka_bootstrap: str,
    kafka_admin: KafkaAdminClient,
    deployment: Deployment,
    which: int,
    setting: str,
    value: str,
) -> None:
    # Mutant: without the setting in `expected_configuration` nobody notices.
    ensure_topics(kafka_bootstrap, deployment)
    topic = topics_of(deployment)[which].topic
    kafka_admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {setting: value})])
    (problem,) = check_topics(kafka_bootstrap, deployment)
    assert problem.startswith(f"topic {topic}: {setting} is {value}, not ")
    assert f"--entity-name {topic} --add-config {setting}=" in problem
