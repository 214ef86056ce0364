"""Settings of Kafka and Redis under which events would be lost sooner or later: looked at before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from redis import Redis, RedisError

from pipeline.bridge.client_errors import translated
from pipeline.bridge.group_view import ANSWER_MS
from pipeline.bridge.topics import Topics
from pipeline.errors import PermanentError, TransientError
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity
from pipeline.settings import Settings

SHORTEST_RETENTION = 24 * 3600.0

_log = structlog.get_logger()

TopicSettings = Mapping[str, str]


def settings_of(
    bootstrap: str, topics: Iterable[str], security: KafkaSecurity = PLAINTEXT
) -> dict[str, TopicSettings]:
    """Each topic's settings as the broker has them; PermanentError when they may not be read."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    with translated():
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap, bootstrap_timeout_ms=ANSWER_MS, **security.kafka_python()
        )
        try:
            described = admin.describe_configs(resources, config_filter="all")
        finally:
            admin.close()
    found = described[ConfigResourceType.TOPIC.name.lower()]
    return {topic: {name: str(one["value"]) for name, one in found[topic].items()} for topic in topics}


def retention(settings: TopicSettings) -> float | None:
    """How long a topic keeps its records, in seconds; None for ever."""
    milliseconds = int(settings["retention.ms"])
    return None if milliseconds < 0 else milliseconds / 1000


def retention_of(settings: Settings, consumer: str) -> dict[int, float | None]:
    """How long each partition that a consumer reads keeps its records now, in seconds; None for ever."""
    topics, environment = Topics.of(settings, consumer), settings.environment
    found = settings_of(environment.kafka_bootstrap_servers, topics.names, environment.kafka_security)
    kept = {topic: retention(one) for topic, one in found.items()}
    return {number: kept[topics.place(number).topic] for number in topics.numbers}


def topic_problems(topics: Mapping[str, TopicSettings]) -> list[str]:
    """What of these settings loses events whatever a bridge does, each with its remedy."""
    problems = []
    for topic, settings in topics.items():
        alter = f"kafka-configs --alter --entity-type topics --entity-name {topic}"
        if int(settings["retention.bytes"]) >= 0:
            problems.append(
                f"topic {topic}: retention.bytes is {settings['retention.bytes']}, so a flood deletes records that no"
                f" sink has accepted; run: {alter} --add-config retention.bytes=-1"
            )
        if "compact" in settings["cleanup.policy"]:
            problems.append(
                f"topic {topic}: cleanup.policy is {settings['cleanup.policy']}, so only the newest record of each"
                f" merchant stays; run: {alter} --add-config cleanup.policy=delete"
            )
    return problems


def short_retention(topic: str, seconds: float | None) -> str | None:
    """What to say about a topic that keeps its records for so long; None when it is long enough."""
    if seconds is None or seconds >= SHORTEST_RETENTION:
        return None
    return (
        f"topic {topic} keeps records for {seconds / 3600:g} h: a consumer that stands still for longer loses some;"
        f" give it at least {SHORTEST_RETENTION / 3600:g} h"
    )


def store_problems(client: Redis) -> tuple[list[str], list[str]]:
    """What of Redis's settings loses lanes, and what else is amiss; TransientError when it does not answer."""
    try:
        memory: Mapping[str, Any] = client.info("memory")
    except RedisError as error:
        raise TransientError(
            f"Redis does not answer: {type(error).__name__}", hint="see REDIS_URL"
        ) from error
    policy = memory.get("maxmemory_policy", "noeviction")
    losing = [f"Redis: maxmemory-policy is {policy}, must be noeviction: evicted keys are lost lanes"]
    unbounded = ["Redis: maxmemory is not set, so bridges cannot stop before memory is full"]
    return [] if policy == "noeviction" else losing, [] if memory.get("maxmemory") else unbounded


def require_fit(bootstrap: str, topics: Iterable[str], security: KafkaSecurity, client: Redis) -> None:
    """PermanentError that lists what loses events; what is only amiss is logged."""
    problems, warnings = store_problems(client)
    try:
        found = settings_of(bootstrap, topics, security)
    except PermanentError as error:
        warnings.append(f"the topics' settings cannot be looked at: {error}")
        found = {}
    problems += topic_problems(found)
    warnings += [said for topic, one in found.items() if (said := short_retention(topic, retention(one)))]
    for warning in warnings:
        _log.warning(warning)
    if problems:
        raise PermanentError("\n".join(problems))
