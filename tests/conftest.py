"""The real services, and places of a test's own in them that are gone afterwards.

A service that does not answer skips the test on a laptop and fails it when CI=true, so CI never turns green for want
of a service. Addresses come from the environment and `.env`, as for every process of the product.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import boto3
import psycopg
import pytest
import redshift_connector
from elasticsearch import Elasticsearch
from hypothesis import settings
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import CoordinatorNotAvailableError
from psycopg import sql
from redis import Redis
from redshift_connector.core import Connection

from devstack import dotenv
from devstack.postgres import create_database, drop_database
from devstack.process import wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# The machine may be busy: no example has a deadline. `make soak` looks longer.
settings.register_profile("shared", deadline=None)
settings.register_profile("soak", settings.get_profile("shared"), max_examples=2000)
settings.load_profile("shared")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole stacks first: where two processes run tests, none waits at the end for a long one of the other."""
    items.sort(key=lambda item: "acceptance" not in item.path.parts)


T = TypeVar("T")
REPO = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class SourceDatabase:
    """A fresh database with PgQ, owned by `app`, that no other test sees.

    `url` is for role pipeline (capture), `writer_url` for role app (the application), `admin_url` for the superuser.
    """

    name: str
    url: str
    writer_url: str
    admin_url: str


@dataclass(frozen=True, slots=True, repr=False)
class Stack:
    """The variables of a stack whose every service answers."""

    variables: Mapping[str, str]


@pytest.fixture(scope="session")
def variables() -> Iterator[Mapping[str, str]]:
    """What `.env` says, overruled by the process environment, and put into it for the code under test.

    SSL_CERT_FILE is `.env`'s: that bundle holds the machine's own authorities and the stand-in's.
    """
    known = dotenv.read(REPO / ".env")
    trust = {name: known[name] for name in ("SSL_CERT_FILE",) if name in known}
    merged = {**known, **os.environ, **trust}
    with pytest.MonkeyPatch.context() as patch:
        for name in known:
            patch.setenv(name, merged[name])
        yield merged


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, variables: Mapping[str, str]) -> Stack:
    """Every service, each asked a question only a working one answers."""
    for service in (
        "postgres_url",
        "redis_url",
        "kafka_bootstrap",
        "elasticsearch_url",
        "warehouse_url",
        "s3_client",
    ):
        request.getfixturevalue(service)
    return Stack(variables)


def required(variables: Mapping[str, str], name: str, ask: Callable[[str], object]) -> str:
    """The variable's value, once the service it names has answered."""
    value = variables.get(name)
    if not value:
        missing(f"{name} is not set: run `make up`")
    try:
        ask(value)
    except Exception as error:  # noqa: BLE001  whatever a client raises, the verdict is the same
        missing(f"{name}: {type(error).__name__}: {error}")
    return value


def missing(reason: str) -> NoReturn:
    """Skip on a laptop, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def unique(prefix: str = "t") -> str:
    """A name nothing else has, fit for a database, a topic, an index and a schema."""
    return f"{prefix}_{uuid.uuid4().hex[:12]}"


def at(url: str, database: str) -> str:
    """The same server and user, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def _select_one(url: str) -> None:
    with psycopg.connect(url, connect_timeout=3) as session:
        session.execute("select 1")


@pytest.fixture(scope="session")
def postgres_url(variables: Mapping[str, str]) -> str:
    """The superuser's URL of the PostgreSQL server."""
    return required(variables, "DEVSTACK_POSTGRES_URL", _select_one)


@pytest.fixture
def source_database(
    postgres_url: str, variables: Mapping[str, str]
) -> Iterator[Callable[[], SourceDatabase]]:
    """Makes fresh source databases."""
    made: list[str] = []

    def make() -> SourceDatabase:
        name = unique("source")
        made.append(name)
        create_database(postgres_url, name)
        pipeline, app = variables["CONTROL_DATABASE_URL"], variables["EXAMPLE_WRITER_URL"]
        return SourceDatabase(name, at(pipeline, name), at(app, name), at(postgres_url, name))

    yield make
    for name in made:
        drop_database(postgres_url, name)


@pytest.fixture
def control_url(postgres_url: str, variables: Mapping[str, str]) -> Iterator[str]:
    """A fresh, empty control database of role pipeline."""
    name = unique("control")
    with psycopg.connect(postgres_url, autocommit=True) as session:
        session.execute(sql.SQL("create database {} owner pipeline").format(sql.Identifier(name)))
    yield at(variables["CONTROL_DATABASE_URL"], name)
    drop_database(postgres_url, name)


def _ask_kafka(bootstrap: str) -> None:
    KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=5000).close()


@pytest.fixture(scope="session")
def kafka_bootstrap(variables: Mapping[str, str]) -> str:
    """host:port of the broker."""
    return required(variables, "KAFKA_BOOTSTRAP_SERVERS", _ask_kafka)


@pytest.fixture(scope="session")
def kafka_admin(kafka_bootstrap: str) -> Iterator[KafkaAdminClient]:
    """One admin client for all tests."""
    client = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    yield client
    client.close()


def coordinated(call: Callable[[], T]) -> T:
    """What a group's coordinator answers. A new broker that is asked for the first time has none for a moment."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return call()
        except CoordinatorNotAvailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def delete_groups(admin: KafkaAdminClient, *groups: str) -> None:
    """Take consumer groups away."""
    coordinated(lambda: admin.delete_groups(list(groups)))


@pytest.fixture
def kafka_topic(kafka_admin: KafkaAdminClient) -> Iterator[Callable[..., str]]:
    """Makes topics: `kafka_topic(partitions=1, **configuration) -> name`; usable when it returns."""
    made: list[str] = []

    def make(partitions: int = 1, **configuration: str) -> str:
        name = unique("topic")
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, topic_configs=configuration)
        kafka_admin.create_topics([topic])
        made.append(name)
        assert wait_until(lambda: _led(kafka_admin, name) == partitions, 10), f"{name} has no leaders"
        return name

    yield make
    if made:
        kafka_admin.delete_topics(made)


def _led(admin: KafkaAdminClient, topic: str) -> int:
    """How many partitions of a topic have a leader."""
    found = admin.describe_topics([topic])
    return sum(partition["leader_id"] >= 0 for entry in found for partition in entry["partitions"])


@pytest.fixture(scope="session")
def redis_url(variables: Mapping[str, str]) -> str:
    """Redis, database 0."""
    return required(variables, "REDIS_URL", _ask_redis)


def _ask_redis(url: str) -> None:
    with Redis.from_url(url, socket_timeout=3) as client:
        client.ping()


@pytest.fixture
def redis_namespace(redis_url: str) -> Iterator[str]:
    """A prefix for keys; every key that begins with it is deleted afterwards."""
    prefix = unique("t") + ":"
    yield prefix
    with Redis.from_url(redis_url) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            client.delete(key)


def _ask_elasticsearch(url: str) -> None:
    with Elasticsearch(url, request_timeout=5, max_retries=0) as client:
        client.cluster.health(wait_for_status="yellow", timeout="3s")


@pytest.fixture(scope="session")
def elasticsearch_url(variables: Mapping[str, str]) -> str:
    """The cluster."""
    return required(variables, "ELASTICSEARCH_URL", _ask_elasticsearch)


@pytest.fixture
def index_prefix(elasticsearch_url: str) -> Iterator[str]:
    """A prefix for indices; every index that begins with it is deleted afterwards, its aliases with it."""
    prefix = unique("t")
    yield prefix
    with Elasticsearch(elasticsearch_url) as client:
        for name in client.indices.get(index=f"{prefix}*", expand_wildcards="all"):
            client.indices.delete(index=name)


def connect_warehouse(url: str) -> Connection:
    """A session by the real driver, over TLS that names the host."""
    parts = urlsplit(url)
    return redshift_connector.connect(
        host=parts.hostname,
        port=parts.port,
        database=parts.path.strip("/"),
        user=parts.username,
        password=unquote(parts.password or ""),
        ssl=True,
        sslmode="verify-full",
    )


def _ask_warehouse(url: str) -> None:
    _run_in_warehouse(url, "select 1")


def _run_in_warehouse(url: str, statement: str) -> None:
    with connect_warehouse(url) as session, session.cursor() as cursor:
        cursor.execute(statement)
        session.commit()


@pytest.fixture(scope="session")
def warehouse_url(variables: Mapping[str, str]) -> str:
    """The warehouse, as the loader's user."""
    return required(variables, "REDSHIFT_URL", _ask_warehouse)


@pytest.fixture
def warehouse_schema(warehouse_url: str) -> Iterator[str]:
    """A fresh schema, dropped with all in it afterwards."""
    name = unique("t")
    _run_in_warehouse(warehouse_url, f'create schema "{name}"')
    yield name
    _run_in_warehouse(warehouse_url, f'drop schema "{name}" cascade')


@pytest.fixture(scope="session")
def s3_client(variables: Mapping[str, str]) -> "S3Client":
    """A client of the bucket's account; it takes the endpoint and keys from the environment."""
    bucket = variables.get("S3_BUCKET", "")
    required(variables, "AWS_ENDPOINT_URL", lambda _: boto3.client("s3").head_bucket(Bucket=bucket))
    return boto3.client("s3")


@pytest.fixture
def s3_prefix(s3_client: "S3Client", variables: Mapping[str, str]) -> Iterator[str]:
    """A key prefix in S3_BUCKET, ending in a slash; its objects are deleted afterwards."""
    prefix, bucket = f"tests/{unique()}/", variables["S3_BUCKET"]
    yield prefix
    for page in s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            s3_client.delete_object(Bucket=bucket, Key=entry["Key"])
