"""Takes away everything a deployment has made in the services, so that the next one starts from nothing."""

from collections.abc import Callable
from itertools import islice
from urllib.parse import unquote, urlsplit

import boto3
import psycopg
import redshift_connector
from elasticsearch import Elasticsearch
from kafka.admin import KafkaAdminClient
from kafka.errors import CoordinatorNotAvailableError
from psycopg import sql
from redis import Redis
from redshift_connector.core import Connection

from devstack.process import wait_until
from pipeline.capture.topics import topics_of
from pipeline.settings import Settings


def forget(settings: Settings, admin_url: str) -> None:
    """Drop the deployment's topics, groups, indices, schema, parts, lanes and control database; make the last anew.

    `admin_url` is a PostgreSQL superuser's. The deployment's processes must be stopped.
    """
    _control(settings, admin_url)
    _kafka(settings)
    _elasticsearch(settings)
    _redshift(settings)
    _s3(settings)
    empty_lanes(settings)


def warehouse(settings: Settings) -> Connection:
    """A session in the warehouse by the real driver; TLS names the host."""
    parts = urlsplit(settings.environment.redshift_url.get_secret_value())
    return redshift_connector.connect(
        host=parts.hostname,
        port=parts.port,
        database=parts.path.strip("/"),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        sslmode="verify-full",
        max_prepared_statements=0,
    )


def _control(settings: Settings, admin_url: str) -> None:
    name = urlsplit(settings.environment.control_database_url.get_secret_value()).path.strip("/")
    with psycopg.connect(admin_url, autocommit=True) as session:
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        session.execute(sql.SQL("CREATE DATABASE {} OWNER pipeline").format(sql.Identifier(name)))


def _kafka(settings: Settings) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.environment.kafka_bootstrap_servers)
    topics = {topic.topic for topic in topics_of(settings.configuration.deployment)}
    groups = [f"{settings.deployment}-{consumer}" for consumer in settings.configuration.consumers]
    try:
        found = topics & set(admin.list_topics())
        if found:
            admin.delete_topics(sorted(found))
            if not wait_until(lambda: not topics & set(admin.list_topics()), 30):
                raise TimeoutError(f"Kafka does not delete topics {', '.join(sorted(found))}")
        if not wait_until(lambda: _deleted(admin, groups), 30):
            raise TimeoutError("Kafka has no coordinator of groups")
    finally:
        admin.close()


def _deleted(admin: KafkaAdminClient, groups: list[str]) -> bool:
    """False while a new broker, asked for a group for the first time, still makes what it keeps groups in."""
    try:
        _unless_absent(lambda: admin.delete_groups(groups))
    except CoordinatorNotAvailableError:
        return False
    return True


def _unless_absent(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:
        if "GroupIdNotFound" not in f"{type(error).__name__} {error}":
            raise


def _elasticsearch(settings: Settings) -> None:
    with Elasticsearch(settings.environment.elasticsearch_url.get_secret_value()) as client:
        for index in client.indices.get(index=f"{settings.deployment}-*", expand_wildcards="all"):
            client.indices.delete(index=index)


def _redshift(settings: Settings) -> None:
    schema = settings.warehouse_schema
    with warehouse(settings) as session, session.cursor() as cursor:
        cursor.execute("SELECT 1 FROM svv_all_tables WHERE schema_name = %s LIMIT 1", (schema,))
        if cursor.fetchall():
            cursor.execute(f'DROP SCHEMA "{schema}" CASCADE')
        session.commit()


def _s3(settings: Settings) -> None:
    client, bucket = boto3.client("s3"), settings.environment.s3_bucket
    for page in client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=f"parts/{settings.deployment}/"
    ):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        if keys:
            client.delete_objects(Bucket=bucket, Delete={"Objects": keys})  # type: ignore[typeddict-item]


def empty_lanes(settings: Settings) -> None:
    """Take away everything that Redis holds of the deployment."""
    with Redis.from_url(settings.environment.redis_url.get_secret_value()) as client:
        keys = client.scan_iter(match=f"{settings.deployment}:*", count=1000)
        while some := list(islice(keys, 1000)):
            client.unlink(*some)
