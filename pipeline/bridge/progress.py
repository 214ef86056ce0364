"""How far a consumer has come: committed offsets mean "accepted by its sink". Partitions are numbered through its topics."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from pipeline.bridge.group_view import GroupView
from pipeline.bridge.start import group_of
from pipeline.bridge.topics import Topics
from pipeline.settings import Settings


def lag(settings: Settings, consumer: str) -> dict[int, tuple[int | None, int]]:
    """Per partition: the consumer's committed offset (None before its first start) and the end."""
    with closing(_view(settings, consumer)) as view:
        committed = view.committed()
        return {number: (committed.get(number), end) for number, end in view.ends().items()}


def end_offsets(settings: Settings, consumer: str) -> dict[int, int]:
    """The offset after the last record of each partition that the consumer reads."""
    with closing(_view(settings, consumer)) as view:
        return view.ends()


def accepted(settings: Settings, consumer: str, ends: Mapping[int, int]) -> bool:
    """True when the sink of `consumer` has accepted everything below `ends`."""
    with closing(_view(settings, consumer)) as view:
        committed = view.committed()
    return all(committed.get(number, 0) >= end for number, end in ends.items())


def oldest_seconds(settings: Settings, consumer: str, now: float) -> float:
    """Age of the oldest record that the sink of `consumer` has not accepted, by when it was published; 0 without one."""
    with closing(_view(settings, consumer)) as view:
        committed, ends = view.committed(), view.ends()
        behind = {number: offset for number, offset in committed.items() if offset < ends.get(number, 0)}
        times = view.published_at(behind) if behind else {}
    return max((now - published for published in times.values()), default=0.0)


def _view(settings: Settings, consumer: str) -> GroupView:
    environment = settings.environment
    return GroupView(
        environment.kafka_bootstrap_servers,
        Topics.of(settings, consumer),
        group_of(settings, consumer),
        environment.kafka_security,
    )
