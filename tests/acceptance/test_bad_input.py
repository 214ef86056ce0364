"""Records that are no events are set aside with their reason; nothing stands still, crashes, or forgets them."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from kafka import KafkaProducer

from devstack.process import wait_until
from pipeline.domain.routing import partition_of
from pipeline.search.naming import document_id, write_alias
from tests.acceptance.deployment import PARTITIONS, Deployment
from tests.acceptance.running import deployed, findings, insert_steps, start, touch_steps
from tests.conftest import Stack
from tests.integration.kafka_topic import read_topic

pytestmark = pytest.mark.acceptance

PROCESSES = ("capture_shard0", "bridge_search", "worker_search")
MERCHANT = "strange"


@pytest.fixture(scope="module")
def running(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One source and the search consumer, nothing else."""
    with deployed(stack, tmp_path_factory.mktemp("bad"), "bad") as one:
        file = one.directory / "pipeline.toml"
        text = file.read_text()
        kept, rest = text.split("[consumers.warehouse]")
        file.write_text(kept + "[search]" + rest.split("[search]")[1])
        start(one, PROCESSES)
        yield one


@pytest.fixture
def producer(running: Deployment) -> Iterator[KafkaProducer]:
    client = KafkaProducer(bootstrap_servers=running.variables["KAFKA_BOOTSTRAP_SERVERS"], acks="all")
    yield client
    client.close()


def send(producer: KafkaProducer, topic: str, key: bytes | None, value: bytes | None) -> tuple[int, int]:
    """Put a record where the merchant's records are; returns its partition and offset."""
    place = partition_of(MERCHANT, PARTITIONS)
    written = producer.send(topic, key=key, value=value, partition=place).get(timeout=10)
    return written.partition, written.offset


def an_envelope(deployment: Deployment, key: str) -> dict[str, Any]:
    """The envelope of a row of MERCHANT, as the relay published it."""
    records = read_topic(deployment.variables["KAFKA_BOOTSTRAP_SERVERS"], deployment.name)
    values = [record.value or b"" for record in records if record.key == MERCHANT.encode()]
    found = [json.loads(value) for value in values if value.endswith(b"}")]
    return next(envelope for envelope in found if envelope["key"] == {"id": int(key)})


def set_aside(deployment: Deployment) -> dict[tuple[int, int], str]:
    """Why each record was set aside, by partition and offset, as `pipeline rejected list` tells."""
    listed = json.loads(deployment.run("rejected", "list", "search", "--json").stdout)
    assert len({(one["partition"], one["offset"]) for one in listed}) == len(listed), "listed twice"
    return {(one["partition"], one["offset"]): one["reason"] for one in listed}


def counted(deployment: Deployment) -> int:
    """How many `pipeline status` counts."""
    state = json.loads(deployment.run("status", "--json", expect=None).stdout)
    count: int = next(one["rejected"] for one in state["consumers"] if one["name"] == "search")
    return count


def searchable(deployment: Deployment, key: str) -> bool:
    """The row's document is there."""
    with Elasticsearch(deployment.variables["ELASTICSEARCH_URL"]) as client:
        return bool(
            client.exists(
                index=write_alias(deployment.name, "step"),
                id=document_id(MERCHANT, "step", key),
                routing=MERCHANT,
            )
        )


def pids(deployment: Deployment) -> list[int | None]:
    """The processes; another one would mean that one crashed."""
    return [deployment.supervisor.pid(name) for name in PROCESSES]


# Mutants: a malformed record raises in the worker instead of being set aside; the bridge skips keys that are no
# merchants without storing them.
def test_malformed_records_are_set_aside_and_what_follows_arrives(
    running: Deployment, producer: KafkaProducer
) -> None:
    (first,) = insert_steps(running, "shard0", MERCHANT, 1)
    assert wait_until(lambda: searchable(running, first), 30)
    before, already = pids(running), set_aside(running)
    good = an_envelope(running, first)
    key = MERCHANT.encode()
    expected = {
        send(producer, running.name, key, b'{"e": 1, "op":'): "not an event of envelope version 1",
        send(producer, running.name, None, json.dumps(good).encode()): "a record without key",
        send(producer, running.name, b"a b!", json.dumps(good).encode()): "is no merchant id",
        send(producer, running.name, key, None): "a record without value",
        send(producer, running.name, key, json.dumps(good | {"e": 2}).encode()): "envelope version",
        send(producer, running.name, key, json.dumps(good | {"merchant": "other"}).encode()): (
            'event of merchant "other" under the key of "strange"'
        ),
    }
    (last,) = insert_steps(running, "shard0", MERCHANT, 1)
    assert wait_until(lambda: searchable(running, last), 30), "what follows malformed records does not arrive"
    running.catch_up("search")

    found = {place: reason for place, reason in set_aside(running).items() if place not in already}
    assert found.keys() == expected.keys()
    for place, reason in expected.items():
        assert reason in found[place], (place, found[place])
    assert counted(running) == len(already) + len(expected)
    assert pids(running) == before
    told = running.run("verify", "--source", "shard0").stdout
    assert "set-aside records cannot be read as events: pipeline rejected list" in told

    running.supervisor.signal("bridge_search", signal.SIGKILL)
    assert wait_until(lambda: running.supervisor.restarts("bridge_search") == 1, 30)
    (again,) = insert_steps(running, "shard0", MERCHANT, 1)
    assert wait_until(lambda: searchable(running, again), 30)
    assert counted(running) == len(already) + len(expected)


# Mutant: set-aside events are not looked up by verify; then the row would be called lost.
def test_a_row_whose_event_was_set_aside_is_called_rejected(
    running: Deployment, producer: KafkaProducer
) -> None:
    (key,) = insert_steps(running, "shard0", MERCHANT, 1)
    assert wait_until(lambda: searchable(running, key), 30)
    before, already = pids(running), counted(running)
    envelope = an_envelope(running, key) | {"after": ["no", "row"]}
    envelope["ver"] = str(int(envelope["ver"]) + 1)
    envelope["ev"] += 1  # at its own position it would be a double
    send(producer, running.name, MERCHANT.encode(), json.dumps(envelope).encode())
    running.catch_up("search")
    with Elasticsearch(running.variables["ELASTICSEARCH_URL"]) as client:
        client.delete(
            index=write_alias(running.name, "step"), id=document_id(MERCHANT, "step", key), routing=MERCHANT
        )
    report = running.verify("--source", "shard0")
    assert findings(report) == {("step", "search", "rejected", MERCHANT, key)}
    assert counted(running) == already + 1
    assert pids(running) == before
    (again,) = insert_steps(running, "shard0", MERCHANT, 1)
    assert wait_until(lambda: searchable(running, again), 30)
    touch_steps(running, "shard0", MERCHANT)
    assert running.verify("--source", "shard0")["ok"]
