"""Where a consumer begins: its ``start`` setting is used once, recorded, and never again.

A group whose start is recorded but whose offsets are gone (a deleted group, a topic made anew, a week without the
bridge) has lost its place: beginning anew by itself would lose or repeat events silently, so it refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from pipeline.bridge.group_view import GroupView
from pipeline.bridge.identity import KnownTopics
from pipeline.bridge.topics import Place, Topics
from pipeline.control import actions, detached, fences, identities, sweeps
from pipeline.control.database import ControlDatabase
from pipeline.control.identities import Identities
from pipeline.errors import FencedError, PermanentError, PositionLostError
from pipeline.settings import Settings


def group_of(settings: Settings, consumer: str) -> str:
    """The Kafka consumer group of one consumer."""
    return f"{settings.deployment}-{consumer}"


def ensure_started(database: ControlDatabase, settings: Settings, consumer: str) -> KnownTopics:
    """Give every partition a committed offset at the consumer's first start; refuse when one was lost since.

    Returns which topics its offsets belong to; PositionLostError when those of these names are others.

    A consumer that has started without snapshots and takes them now reads their topic from its beginning, and runs the
    sweeps that it has run again: rows that lie before them in that topic come after them. PositionLostError also when
    detached lanes stand beyond their partition's end. PermanentError when a topic has another number of partitions than configured (merchants are spread by it), or when the consumer used to read
    another stream: its lanes hold offsets of that one.
    """
    topics, group, environment = (
        Topics.of(settings, consumer),
        group_of(settings, consumer),
        settings.environment,
    )
    view = GroupView(environment.kafka_bootstrap_servers, topics, group, environment.kafka_security)
    try:
        _require_partitions(view, topics)
        found = view.identities()
        known = KnownTopics(consumer, identities.note(database, consumer, found))
        known.require(found)
        started = [
            name for name in topics.names if actions.recorded(database, "start", _subject(group, name))
        ]
        _require_the_same_stream(database, settings, group, topics, started)
        missing = [topics.place(number) for number in topics.numbers if number not in view.committed()]
        _refuse([place for place in missing if place.topic in started], group)
        _require_detached_within(database, consumer, topics, view)
        start = settings.consumer(consumer).start if not started else "earliest"
        if started and len(started) < len(topics.names):
            sweeps.forget_runs(database, consumer)
        _begin(view, topics, start)
        for name in topics.names:
            if name not in started:
                subject = _subject(group, name)
                details = {"start": start, "topic": str(known.identities[name])}
                actions.record(database, actor="bridge", verb="start", subject=subject, details=details)
        return known
    finally:
        view.close()


def start_over(settings: Settings, consumer: str) -> Identities:
    """Commit the first offset that each partition has now; returns which topics these are. FencedError while bridges run."""
    topics, group = Topics.of(settings, consumer), group_of(settings, consumer)
    environment = settings.environment
    with closing(
        GroupView(environment.kafka_bootstrap_servers, topics, group, environment.kafka_security)
    ) as view:
        _require_partitions(view, topics)
        found = view.identities()
        try:
            view.commit(view.beginnings())
        except FencedError as error:
            raise FencedError(
                f"group {group} has members: bridges of {consumer} run",
                hint="stop all of them; Kafka counts one that was killed for up to 30 s more",
            ) from error
    return found


def _subject(group: str, topic: str) -> str:
    return f"{group} {topic}"


def _require_partitions(view: GroupView, topics: Topics) -> None:
    for topic, found in view.counts().items():
        if not found:
            raise PermanentError(f"there is no topic {topic}", hint="run: pipeline migrate")
        if found != topics.partitions:
            raise PermanentError(
                f"topic {topic} has {found} partitions, pipeline.toml says {topics.partitions}",
                hint="merchants are spread by this number: set it to what the topic has",
            )


def _require_the_same_stream(
    database: ControlDatabase, settings: Settings, group: str, topics: Topics, started: Sequence[str]
) -> None:
    deployment = settings.configuration.deployment
    others = {deployment.datastream.topic, deployment.eventstream.topic} - set(topics.names)
    for other in others:
        if not started and actions.recorded(database, "start", _subject(group, other)):
            raise PermanentError(
                f"group {group} has read {other} before, and now is to read {topics.names[0]}",
                hint="a consumer's topic never changes: give a new consumer a name of its own",
            )


def _refuse(lost: Sequence[Place], group: str) -> None:
    if lost:
        topic = lost[0].topic
        partitions = [place.partition for place in lost if place.topic == topic]
        raise PositionLostError(
            f"group {group} has started on {topic} before, but partitions {partitions} have no committed offset",
            hint="set the group's offsets to where to go on from (kafka-consumer-groups --reset-offsets"
            " --to-earliest), then snapshot every source",
        )


def _require_detached_within(
    database: ControlDatabase, consumer: str, topics: Topics, view: GroupView
) -> None:
    ends: dict[fences.Place, int] = {topics.place(number): end for number, end in view.ends().items()}
    if beyond := detached.beyond(database, consumer, ends):
        raise PositionLostError(
            f"{beyond} detached lanes of {consumer} stand beyond the end of their partition: its topic was made anew",
            hint="what they had left is gone with it: see Topic made anew in the runbook",
        )


def _begin(view: GroupView, topics: Topics, start: str) -> None:
    missing = set(topics.numbers) - view.committed().keys()
    if not missing:
        return
    bounds = view.beginnings() if start == "earliest" else view.ends()
    try:
        view.commit({number: bounds[number] for number in missing})
    except FencedError as error:
        if missing - view.committed().keys():  # else: another bridge of this consumer began at the same time
            raise FencedError(
                f"{error.what}: the group has members that do not read {', '.join(topics.names)} yet",
                hint="stop this consumer's bridges of the earlier release first",
            ) from error
