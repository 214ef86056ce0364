"""A consumer of domain events alone: from a transaction through relay, Kafka, bridge and lane to its handler."""

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.bridge import progress
from pipeline.domain.event import decode
from pipeline.settings import load
from tests.conftest import SourceDatabase, unique
from tests.integration.capture_process import Site, site, topics
from tests.integration.captured import Captured
from tests.integration.kafka_topic import read_topic

pytestmark = pytest.mark.integration
CONSUMER = """
[consumers.record]
handler = "tests.fakes.recording:record"
topic = "eventstream"
group = 10
"""
MERCHANTS = ("6", "7", "acme")
EACH = 20


@contextmanager
def running(site: Site, log: Path, *command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends in time when told to, and well."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=site.directory,
            env={**os.environ, **site.variables, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def emit(captured: Captured) -> None:
    """Transactions that each change a row and emit an event of one merchant, by turns; numbered per merchant."""
    with captured.writer() as writer:
        for number in range(EACH):
            for merchant in MERCHANTS:
                with writer.transaction():
                    writer.execute(
                        "insert into t values (%s, 6, 1)", (MERCHANTS.index(merchant) * EACH + number,)
                    )
                    writer.execute(
                        "select cdc.emit(%s, 'payment.settled', %s)", (merchant, f'{{"number": {number}}}')
                    )


def delivered(client: redis.Redis, prefix: str) -> dict[str, list[int]]:
    """Per merchant the offsets that the handler took, in its order."""
    lines: list[bytes] = client.lrange(f"{prefix}log", 0, -1)  # type: ignore[assignment]
    taken: dict[str, list[int]] = defaultdict(list)
    for _, merchant, *offsets in (line.decode().split() for line in lines):
        taken[merchant] += map(int, offsets)
    return taken


def test_a_consumer_of_domain_events_gets_them_alone_and_in_order(
    captured: Captured,
    capture_databases: tuple[SourceDatabase, str],
    kafka_bootstrap: str,
    kafka_admin: KafkaAdminClient,
    variables: Mapping[str, str],
    redis_url: str,
    tmp_path: Path,
) -> None:
    # Mutant: a bridge that reads `datastream` whatever the consumer says.
    captured.run("create table t (id bigint primary key, merchant_id integer, v integer)")
    captured.install_source(captured.choose({"t": {}}, emitters=("app",)))
    client = redis.Redis.from_url(redis_url)
    with ExitStack() as stack:
        topic = stack.enter_context(topics(kafka_bootstrap, kafka_admin, unique("topic")))
        stack.callback(
            lambda: [client.delete(key) for key in client.scan_iter(match=f"{topic}:*", count=1000)]
        )
        place = site(tmp_path, captured, capture_databases[1], topic, variables, CONSUMER)
        own = {"RECORD_URL": redis_url, "RECORD_PREFIX": f"{topic}:sink:", "PYTHONWARNINGS": "ignore"}
        celery = ("celery", "-A", "tasks.app", "worker", "-Q", "record", "-P", "threads", "-c", "2")
        quiet = ("--without-gossip", "--without-mingle", "-n", f"record@{topic}")
        stack.enter_context(place.relay())
        stack.enter_context(running(place, tmp_path / "bridge", "pipeline", "bridge", "record"))
        stack.enter_context(running(place, tmp_path / "worker", *celery, *quiet, **own))
        emit(captured)
        done = EACH * len(MERCHANTS)

        def arrived() -> bool:
            return (
                sum(len(set(offsets)) for offsets in delivered(client, own["RECORD_PREFIX"]).values()) == done
            )

        assert wait_until(arrived, 60), (tmp_path / "worker").read_text()
        settings = load({**place.variables}, tmp_path)
        ends = progress.end_offsets(settings, "record")
        assert wait_until(lambda: progress.accepted(settings, "record", ends), 30)
        assert sum(ends.values()) == done
        records = {
            (record.key.decode(), record.offset): record
            for record in read_topic(kafka_bootstrap, f"{topic}.events")
        }
        for merchant, offsets in delivered(client, own["RECORD_PREFIX"]).items():
            taken = [decode(records[merchant, offset].value, merchant) for offset in dict.fromkeys(offsets)]
            assert [event.row()["number"] for event in taken] == list(range(EACH))
            assert {event.op for event in taken} == {"event"}
    client.close()
