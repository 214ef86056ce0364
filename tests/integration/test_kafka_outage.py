"""A Kafka that is killed, stopped and started again, under relays and their producers."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from devstack.kafka.broker import Kafka
from devstack.private import own_site
from devstack.process import wait_until
from devstack.service import Site as Place
from pipeline.capture.confluent import ConfluentProducer
from pipeline.capture.kafka_python import KafkaPythonProducer
from pipeline.capture.publisher import Publisher, PublishError, StoppedError
from pipeline.capture.topics import ensure_topics
from pipeline.domain.event import decode
from tests.conftest import SourceDatabase, unique
from tests.integration.capture_process import Site, deployment, site
from tests.integration.captured import Captured
from tests.integration.kafka_topic import ended, read_topic
from tests.integration.own_services import started_kafka

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str) -> Iterator[Place]:
    with own_site(tmp_path_factory.mktemp("kafka") / "stack") as place:
        yield place


@pytest.fixture
def kafka(place: Place) -> Kafka:
    """It runs; whatever the test before did to it."""
    return started_kafka(place)


def bootstrap_of(kafka: Kafka) -> str:
    return f"127.0.0.1:{kafka.port}"


def send(kafka: Kafka, what: signal.Signals) -> None:
    pid = kafka.running()
    assert pid is not None
    os.kill(pid, what)


@pytest.mark.parametrize(
    "kind", [KafkaPythonProducer, ConfluentProducer], ids=["kafka-python", "confluent-kafka"]
)
def test_a_broker_that_stands_still_ends_either_producer_in_time(
    kafka: Kafka, kind: type[KafkaPythonProducer] | type[ConfluentProducer]
) -> None:
    # Mutant: without the publisher's own patience settle waits for the delivery timeout of a day.
    topic = unique("topic")
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_of(kafka))
    admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()
    producer = kind(bootstrap_of(kafka), client_id="test")
    publisher = Publisher(producer, {topic: 1}, patience=1.0)
    try:
        publisher.send(topic, "6", b"before")
        publisher.settle(lambda: False)
        send(kafka, signal.SIGSTOP)
        publisher.send(topic, "6", b"lost")
        with pytest.raises(StoppedError):
            publisher.settle(lambda: True)
        with pytest.raises(PublishError, match="acknowledged nothing"):
            publisher.settle(lambda: False)
    finally:
        send(kafka, signal.SIGCONT)
        if isinstance(producer, KafkaPythonProducer):
            ended(producer._client)
        else:
            publisher.close()


@pytest.fixture
def topic() -> str:
    return unique("topic")


@pytest.fixture(params=["kafka-python", pytest.param("confluent-kafka", marks=pytest.mark.soak)])
def running(
    captured: Captured,
    capture_databases: tuple[SourceDatabase, str],
    topic: str,
    kafka: Kafka,
    variables: Mapping[str, str],
    redis_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Site:
    captured.run("create table t (id bigint primary key, merchant_id integer, v integer)")
    captured.install(t="merchant_id")
    ensure_topics(bootstrap_of(kafka), deployment(topic))
    own = {**variables, "KAFKA_BOOTSTRAP_SERVERS": bootstrap_of(kafka)}
    return site(tmp_path, captured, capture_databases[1], topic, own, f'producer = "{request.param}"')


def published(kafka: Kafka, topic: str, *numbers: int) -> Callable[[], bool]:
    def there() -> bool:
        found = [decode(each.value, each.key.decode()) for each in read_topic(bootstrap_of(kafka), topic)]
        return {event.key["id"] for event in found} == set(numbers)

    return there


def test_a_relay_outlives_a_killed_kafka_and_one_that_is_away_when_it_starts(
    captured: Captured, running: Site, kafka: Kafka, place: Place, topic: str
) -> None:
    # Mutants: the queue measured only while relaying, and nobody hears of it; an outage at the start ends the process.
    with running.relay() as relay:
        captured.run("insert into t values (1, 6, 0)")
        assert wait_until(published(kafka, topic, 1), 30, pause=0.3)
        send(kafka, signal.SIGKILL)
        captured.run("insert into t values (2, 6, 0)")
        started_kafka(place)
        assert wait_until(published(kafka, topic, 1, 2), 40, pause=0.3)
        assert relay.poll() is None
    send(kafka, signal.SIGKILL)
    with running.relay() as relay:
        captured.run("insert into t values (3, 6, 0)")
        said = _read_until(relay.stdout, "Kafka does not answer")
        assert any('"alarm": "lag"' in line for line in said)
        started_kafka(place)
        assert wait_until(published(kafka, topic, 1, 2, 3), 40, pause=0.3)
        _read_until(relay.stdout, '"event": "alarm ends"')


def _read_until(lines: Iterator[str] | None, wanted: str) -> list[str]:
    assert lines is not None
    said = []
    for line in lines:
        said.append(line)
        if wanted in line:
            return said
    raise AssertionError(f"the relay ended without {wanted}: {said}")
