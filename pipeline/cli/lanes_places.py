"""Where lanes stand: what the control database, Redis and Kafka each know of them, opened when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from heapq import nlargest
from posixpath import commonprefix

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pipeline import settings as configuration
from pipeline.bridge import progress
from pipeline.bridge.ranges import Range, RangeReader
from pipeline.bridge.topics import Place, Topics
from pipeline.cli.terminal import plain
from pipeline.control import detached, lane_views
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.control.detached import DetachedLane
from pipeline.domain.routing import is_merchant, lane_of, merchant_of_lane, partition_of
from pipeline.errors import PermanentError
from pipeline.lanes.held_tasks import TASKS
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.lanes.view import LaneView, LaneViews
from pipeline.replay.tally import Advance, records
from pipeline.settings import Settings
from pipeline.telemetry import heartbeats

_COMPARED = 2000


@dataclass(frozen=True, slots=True)
class Standing:
    """One lane: its place (None for lanes of tasks), the detached row if it has one, and what Redis has of it."""

    merchant: str
    lane: str
    place: Place | None
    row: DetachedLane | None
    view: LaneView

    @property
    def state(self) -> str:
        """``live``: fed by the live reader; else as the row says, and ``parked`` also when only Redis knows it yet."""
        if self.view.parked is not None:
            return "parked"
        return "live" if self.row is None else self.row.state

    @property
    def first(self) -> int | None:
        """The first offset that is not accepted; None when neither row nor Redis knows."""
        if self.row is not None:
            return self.row.first
        return None if self.view.acknowledged is None else self.view.acknowledged + 1


class Ground:
    """One consumer, and the services that know about its lanes."""

    def __init__(self, settings: Settings, consumer: str, stack: ExitStack) -> None:
        self.settings = settings
        self.consumer = consumer
        self._stack = stack
        self._readers: dict[str, RangeReader] = {}
        self._bounds: dict[str, dict[int, Range]] = {}

    @property
    def of_tasks(self) -> bool:
        """True for the lanes of Celery tasks: they come from no topic, and no bridge feeds them."""
        return self.consumer == TASKS

    @cached_property
    def database(self) -> ControlDatabase:
        """The control database, migrated."""
        database = ControlDatabase(self.settings.environment.control_database_url.get_secret_value())
        self._stack.callback(database.close)
        require_migrated(database)
        return database

    @cached_property
    def store(self) -> RedisLaneStore:
        """The lanes."""
        client = connect(self._redis_url)
        self._stack.callback(client.close)
        return RedisLaneStore(client, namespace_of(self.settings.deployment, self.consumer))

    @cached_property
    def views(self) -> LaneViews:
        """The lanes, one by one."""
        client = connect(self._redis_url)
        self._stack.callback(client.close)
        return LaneViews(client, namespace_of(self.settings.deployment, self.consumer))

    @cached_property
    def topics(self) -> Topics:
        """What the consumer reads."""
        return Topics.of(self.settings, self.consumer)

    @cached_property
    def committed(self) -> dict[int, int]:
        """The consumer's committed offsets, by numbered partition."""
        return {number: at or 0 for number, (at, _) in progress.lag(self.settings, self.consumer).items()}

    def kinds(self) -> tuple[bool, ...]:
        """Whether its lanes are of changes alone (False), or of snapshots' rows too (True)."""
        return (False, True) if not self.of_tasks and len(self.topics.names) > 1 else (False,)

    def standings(self, merchants: Sequence[str], kinds: Sequence[bool] | None = None) -> list[Standing]:
        """The lanes of these merchants, of these `kinds` or of all that the consumer has."""
        chosen = self.kinds() if kinds is None else kinds
        pairs = [(merchant, kind) for merchant in merchants for kind in chosen]
        names = [lane_of(merchant, snapshot=kind) for merchant, kind in pairs]
        found = detached.rows(self.database, self.consumer, lanes=names) if names else []
        rows = {row.lane: row for row in found}
        views = self.views.described(names)
        return [
            Standing(merchant, name, self.place(merchant, snapshot=kind), rows.get(name), view)
            for (merchant, kind), name, view in zip(pairs, names, views, strict=True)
        ]

    def place(self, merchant: str, *, snapshot: bool) -> Place | None:
        """The partition of a merchant's records."""
        if self.of_tasks:
            return None
        return Place(self.topics.names[snapshot], partition_of(merchant, self.topics.partitions))

    def first_of(self, standing: Standing) -> int:
        """The first offset that is not accepted."""
        place = standing.place
        assert place is not None  # asked only of consumers with topics
        if standing.first is not None:
            return max(standing.first, self.bounds(place).first)
        number = self.topics.number(*place)
        return max(self.committed.get(number, 0), self.bounds(place).first)

    def reader(self, topic: str) -> RangeReader:
        """Reads a topic beside everybody."""
        if topic not in self._readers:
            environment = self.settings.environment
            reader = RangeReader(environment.kafka_bootstrap_servers, topic, environment.kafka_security)
            self._stack.callback(reader.close)
            self._readers[topic] = reader
        return self._readers[topic]

    def bounds(self, place: Place) -> Range:
        """What Kafka had of a partition when it was first asked."""
        if place.topic not in self._bounds:
            self._bounds[place.topic] = self.reader(place.topic).bounds()
        if place.partition not in self._bounds[place.topic]:
            raise PermanentError(
                f"topic {place.topic} has no partition {place.partition}", hint="run: pipeline check"
            )
        return self._bounds[place.topic][place.partition]

    def bridges(self) -> int:
        """How many bridges of the consumer beat."""
        with connect(self._redis_url) as client:
            beating = heartbeats(client, self.settings.deployment)
        return sum(one.process == f"bridge-{self.consumer}" for one in beating)

    def require_seen(self, standings: Sequence[Standing]) -> None:
        """PermanentError naming near ones when nothing was ever seen of a merchant: not in Redis, nor here, nor in Kafka."""
        for merchant in dict.fromkeys(one.merchant for one in standings):
            mine = [one for one in standings if one.merchant == merchant]
            if not any(one.row or one.view.known for one in mine) and not self._published(mine):
                raise PermanentError(
                    f'{self.consumer} never had an event of merchant "{merchant}"',
                    hint=self._near(merchant) or "see: pipeline lanes list " + self.consumer,
                )

    def _published(self, standings: Sequence[Standing]) -> bool:
        """Redis may have been emptied since: what Kafka still has is looked through."""
        return any(self._has_records(one.merchant, one.place) for one in standings if one.place is not None)

    def _has_records(self, merchant: str, place: Place) -> bool:
        part = self.bounds(place)
        with counting(f"looking for records of {merchant}", part) as advance:
            found = records(self.reader(place.topic), place.partition, part, merchant, advance)
            return next(found, None) is not None

    def _near(self, merchant: str) -> str:
        known = {merchant_of_lane(name) for name in self.views.names()}
        known |= {merchant_of_lane(row.lane) for row in lane_views.detached(self.database, self.consumer)}
        return did_you_mean(merchant, known)

    @property
    def _redis_url(self) -> str:
        return self.settings.environment.redis_url.get_secret_value()


@contextmanager
def opened(consumer: str, merchants: Sequence[str] = ()) -> Iterator[Ground]:
    """Settings and services of one consumer; UsageError names near ones when there is none, and what is no merchant id."""
    settings = configuration.load()
    known = sorted([*settings.configuration.consumers, TASKS])
    if consumer not in known:
        near = did_you_mean(consumer, known) or f"there are: {', '.join(known)}"
        raise click.UsageError(f'no consumer is named "{plain(consumer)}"; {near}')
    for merchant in merchants:
        if not is_merchant(merchant):
            raise click.UsageError(f'"{plain(merchant)}" is no merchant id')
    with ExitStack() as stack:
        yield Ground(settings, consumer, stack)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the names that look like this one; empty when none does."""
    # To compare a name thoroughly takes 50 µs, and there may be 200,000.
    likely = nlargest(_COMPARED, known, key=lambda one: _shared(name, one))
    near = get_close_matches(name, sorted(likely), n=3, cutoff=0.6)
    near += [one for one in sorted(likely) if one.startswith(name) and one not in near][: 3 - len(near)]
    return f"did you mean {' or '.join(near)}?" if near else ""


def _shared(one: str, other: str) -> int:
    """How many letters both begin or end with."""
    return max(len(commonprefix((one, other))), len(commonprefix((one[::-1], other[::-1]))))


@contextmanager
def counting(what: str, part: Range) -> Iterator[Advance]:
    """A progress bar on stderr while a partition is read; nothing when that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(plain(what), total=max(1, part.end - part.first))
        yield lambda offset: bars.update(bar, completed=offset - part.first)
