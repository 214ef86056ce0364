"""The topics: made by ``pipeline migrate``, compared at start, never created by a typing error.

``datastream`` carries changes, ``.snapshot`` beside it the rows that snapshots read, spread alike so that live changes
never wait behind them; ``eventstream`` domain events alone; ``.progress`` how far each source is published, the newest
record per source. Merchants are spread by the partition count, replay relies on the retention, and a leader that lacks
what was acknowledged loses it: a difference in any setting is refused with its remedy, and never changed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from pipeline.errors import TransientError
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity
from pipeline.settings import Deployment, Topic, seconds

# Small segments, cleaned early: whoever starts reads what is left of this topic.
_COMPACTED = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.1",
}


def topics_of(deployment: Deployment) -> list[Topic]:
    """Every topic of a deployment."""
    return [deployment.datastream, deployment.snapshots, deployment.eventstream, deployment.progress]


def ensure_topics(
    bootstrap_servers: str, deployment: Deployment, security: KafkaSecurity = PLAINTEXT
) -> list[str]:
    """Make the topics that are missing; returns what was done. Differences are not mended: see `check_topics`."""
    with _admin(bootstrap_servers, security) as admin:
        there = admin.list_topics()
        missing = [topic for topic in topics_of(deployment) if topic.topic not in there]
        return [done for topic in missing for done in _create(admin, deployment, topic)]


def _create(admin: KafkaAdminClient, deployment: Deployment, topic: Topic) -> list[str]:
    options = {
        "num_partitions": topic.partitions,
        "replication_factor": deployment.replication_factor,
        "configs": expected_configuration(deployment, topic),
    }
    try:
        admin.create_topics({topic.topic: options}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return []
    return [f"topic {topic.topic}: created with {topic.partitions} partitions"]


def remove_topics(
    bootstrap_servers: str, deployment: Deployment, groups: Sequence[str], security: KafkaSecurity = PLAINTEXT
) -> None:
    """Take away every topic of a deployment that was made for a while, and the positions of these groups."""
    with _admin(bootstrap_servers, security) as admin:
        there = set(admin.list_topics())
        if ours := [topic.topic for topic in topics_of(deployment) if topic.topic in there]:
            admin.delete_topics(ours)
        admin.delete_groups(list(groups))


def check_topics(
    bootstrap_servers: str, deployment: Deployment, security: KafkaSecurity = PLAINTEXT
) -> list[str]:
    """How the topics differ from what is configured, each with its remedy; empty when they do not."""
    with _admin(bootstrap_servers, security) as admin:
        there = admin.list_topics()
        return [
            problem
            for topic in topics_of(deployment)
            for problem in (
                _problems(admin, deployment, topic)
                if topic.topic in there
                else [f"topic {topic.topic} does not exist; run: pipeline migrate"]
            )
        ]


def expected_configuration(deployment: Deployment, topic: Topic) -> dict[str, str]:
    """A topic's settings, as Kafka writes them."""
    kept = {"cleanup.policy": "delete", "retention.ms": str(round(seconds(topic.retention) * 1000))}
    return {
        **(_COMPACTED if topic == deployment.progress else kept),
        "retention.bytes": "-1",
        "compression.type": "producer",
        "message.timestamp.type": "CreateTime",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(deployment.min_insync_replicas),
    }


def _problems(admin: KafkaAdminClient, deployment: Deployment, topic: Topic) -> list[str]:
    partitions = admin.describe_topics([topic.topic])[0]["partitions"]
    resource = ConfigResource(ConfigResourceType.TOPIC, topic.topic)
    described = admin.describe_configs([resource], config_filter="all")
    found = next(iter(described.values()))[topic.topic]
    problems = _partition_problems(deployment, topic, partitions)
    for name, value in expected_configuration(deployment, topic).items():
        actual = str(found[name]["value"])
        if actual != value:
            problems.append(
                f"topic {topic.topic}: {name} is {actual}, not {value}; {_remedy(topic, name, value)}"
            )
    return problems


def _remedy(topic: Topic, name: str, value: str) -> str:
    command = (
        f"kafka-configs --alter --entity-type topics --entity-name {topic.topic} --add-config {name}={value}"
    )
    own = {"retention.ms": "retention", "min.insync.replicas": "min_insync_replicas"}.get(name)
    return f"set {own} in pipeline.toml, or run: {command}" if own else f"run: {command}"


def _partition_problems(
    deployment: Deployment, topic: Topic, partitions: list[Mapping[str, Any]]
) -> list[str]:
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
def _admin(bootstrap_servers: str, security: KafkaSecurity) -> Iterator[KafkaAdminClient]:
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap_servers, bootstrap_timeout_ms=5_000, **security.kafka_python()
        )
        try:
            yield admin
        finally:
            admin.close()
    except KafkaError as error:
        raise TransientError(
            f"Kafka does not answer: {type(error).__name__}", hint="see KAFKA_BOOTSTRAP_SERVERS"
        ) from error
