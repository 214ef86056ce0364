"""How far a consumer has come: committed offsets mean "accepted by its sink"."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from pipeline.bridge.group_view import GroupView
from pipeline.bridge.start import group_of
from pipeline.settings import Settings


def lag(settings: Settings, consumer: str) -> dict[int, tuple[int | None, int]]:
    """Per partition of the topic: the consumer's committed offset (None before its first start) and the end."""
    with closing(_view(settings, consumer)) as view:
        committed = view.committed()
        return {partition: (committed.get(partition), end) for partition, end in view.ends().items()}


def end_offsets(settings: Settings) -> dict[int, int]:
    """The offset after the last record of each partition of the topic."""
    with closing(_view(settings)) as view:
        return view.ends()


def accepted(settings: Settings, consumer: str, ends: Mapping[int, int]) -> bool:
    """True when the sink of `consumer` has accepted everything below `ends`."""
    with closing(_view(settings, consumer)) as view:
        committed = view.committed()
    return all(committed.get(partition, 0) >= end for partition, end in ends.items())


def oldest_seconds(settings: Settings, consumer: str, now: float) -> float:
    """Age of the oldest record that the sink of `consumer` has not accepted, by when it was published; 0 without one."""
    with closing(_view(settings, consumer)) as view:
        committed, ends = view.committed(), view.ends()
        behind = {
            partition: offset for partition, offset in committed.items() if offset < ends.get(partition, 0)
        }
        times = view.published_at(behind) if behind else {}
    return max((now - published for published in times.values()), default=0.0)


def _view(settings: Settings, consumer: str | None = None) -> GroupView:
    if consumer is not None:
        settings.consumer(consumer)  # says which there are
    group = None if consumer is None else group_of(settings, consumer)
    environment = settings.environment
    return GroupView(
        environment.kafka_bootstrap_servers, settings.datastream.topic, group, environment.kafka_security
    )
