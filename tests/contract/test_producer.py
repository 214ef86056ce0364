"""One suite over both Kafka clients: what the relay may rely on, on the real broker."""

import os
from collections.abc import Callable, Iterator

import pytest

from devstack.ports import free
from pipeline.capture.confluent import ConfluentProducer
from pipeline.capture.kafka_python import KafkaPythonProducer
from pipeline.capture.oversize import LIMIT
from pipeline.capture.publisher import OUTSTANDING, Producer, Publisher, PublishError
from pipeline.domain.routing import partition_of
from pipeline.errors import TransientError
from tests.integration.kafka_topic import ended, read_topic

pytestmark = pytest.mark.integration

Topics = Callable[..., str]
Kind = type[KafkaPythonProducer] | type[ConfluentProducer]


@pytest.fixture(params=[KafkaPythonProducer, ConfluentProducer], ids=["kafka-python", "confluent-kafka"])
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def producer(kind: Kind, kafka_bootstrap: str) -> Iterator[Producer]:
    made = kind(kafka_bootstrap, client_id="test")
    yield made
    made.close()
    if isinstance(made, KafkaPythonProducer):
        ended(made._client)


def never() -> bool:
    return False


def test_records_stand_in_order_under_their_merchants_partition(
    producer: Producer, kafka_bootstrap: str, kafka_topic: Topics
) -> None:
    topic = kafka_topic(4)
    publisher = Publisher(producer, {topic: 4})
    for number in range(3 * OUTSTANDING):
        publisher.send(topic, str(number % 7), b"%d" % number)
        if publisher.full:
            publisher.settle(never, keep=OUTSTANDING // 2)
    publisher.settle(never)
    assert (producer.records, producer.size) == (0, 0)
    records = read_topic(kafka_bootstrap, topic)
    assert len(records) == 3 * OUTSTANDING
    assert all(record.partition == partition_of(record.key.decode(), 4) for record in records)
    for partition in range(4):
        numbers = [int(record.value) for record in records if record.partition == partition]
        assert numbers == sorted(numbers)


def test_what_is_confirmed_is_there(producer: Producer, kafka_bootstrap: str, kafka_topic: Topics) -> None:
    # Mutant: `confirm` without its settle returns before Kafka has the record.
    topic = kafka_topic(1)
    publisher = Publisher(producer, {})
    for number in range(20):
        publisher.confirm(topic, b"source", b"%d" % number, never)
        assert producer.records == 0
    assert [int(record.value) for record in read_topic(kafka_bootstrap, topic)] == list(range(20))


def test_a_record_of_the_largest_size_goes_through(
    producer: Producer, kafka_bootstrap: str, kafka_topic: Topics
) -> None:
    topic = kafka_topic(1)
    publisher = Publisher(producer, {topic: 1})
    publisher.send(topic, "m" * 64, os.urandom(LIMIT))
    publisher.settle(never)
    assert [len(record.value) for record in read_topic(kafka_bootstrap, topic)] == [LIMIT]


def test_a_record_the_broker_refuses_ends_the_publisher(producer: Producer, kafka_topic: Topics) -> None:
    # Mutant: acknowledgements counted without looking at their errors take the record for published.
    narrow = kafka_topic(1, **{"max.message.bytes": "1000"})
    publisher = Publisher(producer, {narrow: 1})
    publisher.send(narrow, "6", os.urandom(5000))
    with pytest.raises(PublishError):
        publisher.settle(never)


def test_what_is_outstanding_is_bounded(producer: Producer, kafka_topic: Topics) -> None:
    topic = kafka_topic(1)
    publisher = Publisher(producer, {topic: 1})
    sent = 0
    while not publisher.full:
        publisher.send(topic, "6", b"x" * 10_000)
        sent += 1
    assert (producer.records, producer.size) == (sent, sent * 10_000)
    publisher.settle(never, keep=sent // 2)
    assert producer.records <= sent // 2 and not publisher.full


def test_no_broker_is_an_outage(kind: Kind) -> None:
    nowhere = next(port for port in range(29000, 30000) if free(port))
    with pytest.raises(TransientError, match="Kafka does not answer"):
        kind(f"127.0.0.1:{nowhere}", client_id="test")
