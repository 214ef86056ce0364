"""Fixtures that several integration tests share."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from devstack.postgres import create_database, drop_database
from pipeline.control.database import ControlDatabase, migrate
from pipeline.domain.routing import snapshot_topic
from pipeline.lanes.claim import TurnLimits
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.settings import load
from tests.conftest import SourceDatabase, at, delete_groups, unique
from tests.fakes.workers import Workshop, Workshops
from tests.integration.bridged import PARTITIONS, Bridged
from tests.integration.captured import Captured


@pytest.fixture(scope="module")
def capture_databases(
    postgres_url: str, variables: Mapping[str, str]
) -> Iterator[tuple[SourceDatabase, str]]:
    """A source database and the URL of a migrated control database, for all tests of a module."""
    source, control = unique("source"), unique("control")
    pipeline, app = variables["CONTROL_DATABASE_URL"], variables["EXAMPLE_WRITER_URL"]
    create_database(postgres_url, source)
    with psycopg.connect(postgres_url, autocommit=True) as session:
        session.execute(f'create database "{control}" owner pipeline'.encode())
    database = ControlDatabase(at(pipeline, control))
    migrate(database)
    database.close()
    yield (
        SourceDatabase(source, at(pipeline, source), at(app, source), at(postgres_url, source)),
        at(pipeline, control),
    )
    for name in (source, control):
        drop_database(postgres_url, name)


@pytest.fixture
def captured(capture_databases: tuple[SourceDatabase, str]) -> Iterator[Captured]:
    """An empty source and an empty control database; capture is not installed yet."""
    source, control_url = capture_databases
    with psycopg.connect(source.admin_url, autocommit=True) as session:
        session.execute("drop schema if exists cdc cascade; drop schema public cascade")
        session.execute("select pgq.drop_queue(queue_name, true) from pgq.queue")
        session.execute("create schema public authorization app")
    database = ControlDatabase(control_url)
    with database.transaction() as connection:
        connection.execute("truncate sources, tables, snapshots, actions, sweeps, placements cascade")
    yield Captured(source, database)
    database.close()


@pytest.fixture
def bridged(
    tmp_path: Path,
    variables: Mapping[str, str],
    kafka_bootstrap: str,
    kafka_topic: Callable[..., str],
    kafka_admin: KafkaAdminClient,
    redis_url: str,
    redis_namespace: str,
    control_url: str,
) -> Iterator[Bridged]:
    """A deployment with topics, lanes and a control database of its own."""
    topic, name = kafka_topic(PARTITIONS), redis_namespace.rstrip(":")
    made = {"num_partitions": PARTITIONS, "replication_factor": 1}
    beside = {snapshot_topic(topic): made, f"{topic}.events": made}
    kafka_admin.create_topics(beside, wait_for_metadata=True)
    (tmp_path / "pipeline.toml").write_text(
        f"""
        [deployment]
        name = "{name}"
        datastream = {{ topic = "{topic}", partitions = {PARTITIONS} }}
        eventstream = {{ topic = "{topic}.events", partitions = {PARTITIONS} }}
        [sources]
        [consumers.audit]
        handler = "nowhere:handle"
        snapshot = true
        """
    )
    own = {**variables, "CONTROL_DATABASE_URL": control_url}
    settings = load(own, tmp_path)
    database = ControlDatabase(control_url)
    migrate(database)
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all")
    client = connect(redis_url)
    store = RedisLaneStore(client, namespace_of(name, "audit"), TurnLimits(group=50))
    yield Bridged(tmp_path, own, settings, database, producer, client, store)
    producer.close()
    client.close()
    database.close()
    delete_groups(kafka_admin, f"{name}-audit")
    kafka_admin.delete_topics(list(beside))


@pytest.fixture
def workshop(redis_url: str, redis_namespace: str, tmp_path: Path) -> Iterator[Workshops]:
    """Makes a workshop: `workshop(group=…, lease=…)`."""
    made: list[Workshop] = []

    def make(**options: Any) -> Workshop:
        made.append(Workshop(redis_url, redis_namespace.rstrip(":"), tmp_path, **options))
        return made[-1]

    yield make
    for shop in made:
        shop.close()
