"""The topic of row changes: made by ``pipeline migrate``, compared at start, never created by a typing error.

Merchants are spread by the partition count and replay relies on the retention, so a difference in either is refused
and never changed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from pipeline.errors import TransientError
from pipeline.settings import Deployment, seconds


def ensure_topic(bootstrap_servers: str, deployment: Deployment) -> list[str]:
    """Make the topic if it is missing; returns what was done. Differences are not mended: see `check_topic`."""
    topic = deployment.datastream
    with _admin(bootstrap_servers) as admin:
        if topic.topic in admin.list_topics():
            return []
        options = {
            "num_partitions": topic.partitions,
            "replication_factor": deployment.replication_factor,
            "configs": expected_configuration(deployment),
        }
        try:
            admin.create_topics({topic.topic: options}, wait_for_metadata=True)
        except TopicAlreadyExistsError:
            return []
    return [f"topic {topic.topic}: created with {topic.partitions} partitions"]


def check_topic(bootstrap_servers: str, deployment: Deployment) -> list[str]:
    """How the topic differs from what is configured; empty when it does not."""
    topic = deployment.datastream
    with _admin(bootstrap_servers) as admin:
        if topic.topic not in admin.list_topics():
            return [f"topic {topic.topic} does not exist; run: pipeline migrate"]
        partitions = admin.describe_topics([topic.topic])[0]["partitions"]
        resource = ConfigResource(ConfigResourceType.TOPIC, topic.topic)
        described = admin.describe_configs([resource], config_filter="all")
    found = next(iter(described.values()))[topic.topic]
    problems = _partition_problems(deployment, partitions)
    for name, value in expected_configuration(deployment).items():
        actual = str(found[name]["value"])
        if actual != value:
            problems.append(
                f"topic {topic.topic}: {name} is {actual}, not {value}; change it or pipeline.toml"
            )
    return problems


def expected_configuration(deployment: Deployment) -> dict[str, str]:
    """The topic's settings, as Kafka writes them."""
    return {
        "retention.ms": str(round(seconds(deployment.datastream.retention) * 1000)),
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
        "compression.type": "producer",
        "message.timestamp.type": "CreateTime",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(deployment.min_insync_replicas),
    }


def _partition_problems(deployment: Deployment, partitions: list[Mapping[str, Any]]) -> list[str]:
    topic = deployment.datastream
    problems = []
    if len(partitions) != topic.partitions:
        problems.append(
            f"topic {topic.topic}: has {len(partitions)} partitions, not {topic.partitions}; merchants would change"
            " partition and lose their order: configure the count it has, or a new topic"
        )
    fewest = min((len(partition["replica_nodes"]) for partition in partitions), default=0)
    if fewest != deployment.replication_factor:
        problems.append(
            f"topic {topic.topic}: has {fewest} replicas, not {deployment.replication_factor}; reassign its partitions"
        )
    return problems


@contextmanager
def _admin(bootstrap_servers: str) -> Iterator[KafkaAdminClient]:
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers, bootstrap_timeout_ms=5_000)
        try:
            yield admin
        finally:
            admin.close()
    except KafkaError as error:
        raise TransientError(
            f"Kafka does not answer: {type(error).__name__}", hint="see KAFKA_BOOTSTRAP_SERVERS"
        ) from error
