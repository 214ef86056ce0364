"""Where a consumer begins: its ``start`` setting is used once, recorded, and never again.

A group whose start is recorded but whose offsets are gone (a deleted group, a topic made anew, a week without the
bridge) has lost its place: beginning anew by itself would lose or repeat events silently, so it refuses.
"""

from __future__ import annotations

from pipeline.bridge.group_view import GroupView
from pipeline.control import actions
from pipeline.control.database import ControlDatabase
from pipeline.errors import FencedError, PermanentError, PositionLostError
from pipeline.settings import Settings


def group_of(settings: Settings, consumer: str) -> str:
    """The Kafka consumer group of one consumer."""
    return f"{settings.deployment}-{consumer}"


def ensure_started(database: ControlDatabase, settings: Settings, consumer: str) -> None:
    """Give every partition a committed offset at the consumer's first start; refuse when one was lost since.

    PermanentError when the topic has another number of partitions than configured: merchants are spread by it.
    """
    topic, group, environment = settings.datastream, group_of(settings, consumer), settings.environment
    view = GroupView(environment.kafka_bootstrap_servers, topic.topic, group, environment.kafka_security)
    try:
        _require_partitions(view, topic.topic, topic.partitions)
        missing = frozenset(range(topic.partitions)) - view.committed().keys()
        if actions.recorded(database, "start", _subject(group, topic.topic)):
            _refuse(missing, group, topic.topic)
        else:
            start = settings.consumer(consumer).start
            _begin(view, missing, start)
            actions.record(
                database,
                actor="bridge",
                verb="start",
                subject=_subject(group, topic.topic),
                details={"start": start},
            )
    finally:
        view.close()


def _subject(group: str, topic: str) -> str:
    return f"{group} {topic}"


def _require_partitions(view: GroupView, topic: str, expected: int) -> None:
    found = view.partitions()
    if not found:
        raise PermanentError(f"there is no topic {topic}", hint="run: pipeline migrate")
    if len(found) != expected:
        raise PermanentError(
            f"topic {topic} has {len(found)} partitions, pipeline.toml says {expected}",
            hint="merchants are spread by this number: set it to what the topic has",
        )


def _refuse(missing: frozenset[int], group: str, topic: str) -> None:
    if missing:
        raise PositionLostError(
            f"group {group} has started on {topic} before, but partitions {sorted(missing)} have no committed offset",
            hint="set the group's offsets to where to go on from (kafka-consumer-groups --reset-offsets"
            " --to-earliest), then snapshot every source",
        )


def _begin(view: GroupView, missing: frozenset[int], start: str) -> None:
    if not missing:
        return
    bounds = view.beginnings() if start == "earliest" else view.ends()
    try:
        view.commit({partition: bounds[partition] for partition in missing})
    except FencedError:
        if missing - view.committed().keys():  # else: another bridge of this consumer began at the same time
            raise
