"""How far a consumer has come. Partitions are numbered through its topics.

What lies below a committed offset is accepted by the consumer's sink, save for what its detached lanes have left there:
whoever waits for the sink asks for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from pipeline.bridge.group_view import GroupView
from pipeline.bridge.start import group_of
from pipeline.bridge.topics import Topics
from pipeline.control import detached, requests
from pipeline.control.database import ControlDatabase
from pipeline.control.detached import Unaccepted
from pipeline.control.fences import Place
from pipeline.domain.routing import lane_of
from pipeline.settings import Settings


def lag(settings: Settings, consumer: str) -> dict[int, tuple[int | None, int]]:
    """Per partition: the consumer's committed offset (None before its first start) and the end. Without detached lanes."""
    with closing(view_of(settings, consumer)) as view:
        committed = view.committed()
        return {number: (committed.get(number), end) for number, end in view.ends().items()}


def end_offsets(settings: Settings, consumer: str) -> dict[int, int]:
    """The offset after the last record of each partition that the consumer reads."""
    with closing(view_of(settings, consumer)) as view:
        return view.ends()


def accepted(settings: Settings, consumer: str, ends: Mapping[int, int]) -> bool:
    """True when the sink of `consumer` has accepted everything below `ends`."""
    return not hindrance(settings, consumer, ends)


def hindrance(
    settings: Settings,
    consumer: str,
    ends: Mapping[int, int],
    *,
    merchant: str | None = None,
    stopped_count: bool = True,
) -> str:
    """Why the sink of `consumer` has not accepted everything below `ends`, in words; empty when it has.

    `merchant`: detached lanes of others do not matter. `stopped_count`: whether paused and parked lanes do.
    """
    with closing(view_of(settings, consumer)) as view:
        committed = view.committed()
    behind = sum(max(0, end - committed.get(number, 0)) for number, end in ends.items())
    # Asked after the committed offsets: see `unaccepted`.
    with closing(_database(settings)) as database:
        left = _unaccepted(database, settings, consumer, ends, merchant).values()
        pause = requests.paused(database, consumer) if behind else None
    stopped = sum(one.stopped for one in left)
    lanes = sum(one.lanes for one in left) - (0 if stopped_count else stopped)
    said = [f"{behind:,} records are behind its committed offsets"] if behind else []
    if lanes:
        stopped_too = f", {stopped:,} of them paused or parked" if stopped and stopped_count else ""
        said.append(f"{lanes:,} detached lanes are behind{stopped_too}")
    if pause:
        said.append(f"{pause.actor} has paused it: {pause.reason}")
    return f"{consumer} has not accepted everything: {'; '.join(said)}" if said else ""


def oldest_seconds(settings: Settings, consumer: str, now: float) -> float:
    """Age of the oldest record that the sink of `consumer` may not have accepted, by when it was published; 0 without one.

    That of a detached lane is where it stands, which may be another merchant's record; what passed retention has no age.
    """
    with closing(view_of(settings, consumer)) as view:
        committed, ends = view.committed(), view.ends()
        with closing(_database(settings)) as database:
            left = _unaccepted(database, settings, consumer, ends, None)
        beginnings = view.beginnings() if left else {}
        for number, one in left.items():
            first = max(one.first, beginnings.get(number, 0))
            committed[number] = min(committed.get(number, first), first)
        behind = {number: offset for number, offset in committed.items() if offset < ends.get(number, 0)}
        times = view.published_at(behind) if behind else {}
    return max((now - published for published in times.values()), default=0.0)


def _unaccepted(
    database: ControlDatabase,
    settings: Settings,
    consumer: str,
    ends: Mapping[int, int],
    merchant: str | None,
) -> dict[int, Unaccepted]:
    topics = Topics.of(settings, consumer)
    places: dict[Place, int] = {topics.place(number): end for number, end in ends.items()}
    lanes = None if merchant is None else [lane_of(merchant, snapshot=snapshot) for snapshot in (False, True)]
    found = detached.unaccepted(database, consumer, places, lanes=lanes)
    return {topics.number(*place): one for place, one in found.items()}


def _database(settings: Settings) -> ControlDatabase:
    return ControlDatabase(settings.environment.control_database_url.get_secret_value())


def view_of(settings: Settings, consumer: str) -> GroupView:
    """A view on the consumer's topics and its group; to be closed."""
    environment = settings.environment
    return GroupView(
        environment.kafka_bootstrap_servers,
        Topics.of(settings, consumer),
        group_of(settings, consumer),
        environment.kafka_security,
    )
