"""Each fixture gives a place that works, and takes it away."""

from collections.abc import Callable

import psycopg
import pytest
from elasticsearch import Elasticsearch
from kafka.admin import KafkaAdminClient
from redis import Redis

from tests.conftest import SourceDatabase

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
