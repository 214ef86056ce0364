"""Each fixture gives a place that works, and takes it away."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import psycopg
import pytest
from elasticsearch import Elasticsearch
from kafka.admin import KafkaAdminClient
from redis import Redis

from devstack.home import here
from devstack.stack import status
from tests.conftest import SourceDatabase, Stack, connect_warehouse, required

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.integration


def test_a_source_database_is_ready_for_capture(source_database: Callable[[], SourceDatabase]) -> None:
    made = source_database()
    with psycopg.connect(made.writer_url, autocommit=True) as app:
        app.execute("create table payments (id bigint primary key)")
    with psycopg.connect(made.url, autocommit=True) as pipeline:
        pipeline.execute("create schema cdc")
        pipeline.execute("select pgq.create_queue('q'), pgq.register_consumer('q', 'c')")
        pipeline.execute("select pgq.insert_event('q', 'type', 'data')")
        pipeline.execute("select pgq.force_tick('q')")
        pipeline.execute("select pgq.ticker('q')")
        assert pipeline.execute("select batch_id from pgq.next_batch_info('q', 'c')").fetchone() is not None
        pipeline.execute("select pgq.maint_rotate_tables_step1('q')")
        pipeline.execute("select pgq.maint_rotate_tables_step2()")
        pipeline.execute(
            "create function cdc.changed() returns trigger language plpgsql as 'begin return new; end'"
        )
        pipeline.execute(
            "create trigger changed after insert on payments for each row execute function cdc.changed()"
        )


def test_two_source_databases_are_two(source_database: Callable[[], SourceDatabase]) -> None:
    assert source_database().name != source_database().name


def test_the_control_database_belongs_to_pipeline(control_url: str) -> None:
    with psycopg.connect(control_url) as session:
        session.execute("create table t (n int)")


def test_a_topic_has_its_partitions(kafka_topic: Callable[..., str], kafka_admin: KafkaAdminClient) -> None:
    name = kafka_topic(3, **{"retention.ms": "1000"})
    (found,) = kafka_admin.describe_topics([name])
    assert len(found["partitions"]) == 3


def test_keys_go_under_the_namespace(redis_url: str, redis_namespace: str) -> None:
    with Redis.from_url(redis_url) as client:
        assert client.set(f"{redis_namespace}key", "value")


def test_an_index_can_be_made(elasticsearch_url: str, index_prefix: str) -> None:
    with Elasticsearch(elasticsearch_url) as client:
        client.index(index=f"{index_prefix}_x", document={"a": 1}, refresh=True)
        assert client.count(index=f"{index_prefix}_x")["count"] == 1


def test_a_table_goes_into_the_schema(warehouse_url: str, warehouse_schema: str) -> None:
    with connect_warehouse(warehouse_url) as session, session.cursor() as cursor:
        cursor.execute(f'create table "{warehouse_schema}".t (n int)')
        session.commit()


def test_an_object_goes_under_the_prefix(
    s3_client: "S3Client", s3_prefix: str, variables: Mapping[str, str]
) -> None:
    bucket = variables["S3_BUCKET"]
    s3_client.put_object(Bucket=bucket, Key=f"{s3_prefix}a", Body=b"x")
    assert s3_client.get_object(Bucket=bucket, Key=f"{s3_prefix}a")["Body"].read() == b"x"


def test_a_missing_service_fails_in_ci_and_skips_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="NOWHERE_URL"):
        required({}, "NOWHERE_URL", print)
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        required({"NOWHERE_URL": "x"}, "NOWHERE_URL", int)


def test_status_sees_every_service(stack: Stack) -> None:
    states = status(here())
    assert {state.service: state.health for state in states} == dict.fromkeys(
        ("postgres", "redis", "kafka", "elasticsearch", "s3", "redshift"), "ok"
    )
    assert all(state.rss > 1 << 20 and state.version for state in states)
