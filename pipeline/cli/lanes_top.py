"""``pipeline lanes top``: the busiest and longest lanes of a consumer, and its rates."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.bridge import progress
from pipeline.bridge.ranges import Range
from pipeline.cli.lanes_places import Ground, opened
from pipeline.cli.terminal import cell
from pipeline.control import lane_views
from pipeline.control.lane_views import Counts
from pipeline.domain.event import merchant_of_key
from pipeline.domain.routing import lane_of
from pipeline.lanes.claim import Overview
from pipeline.lanes.view import LaneView


@dataclass(frozen=True, slots=True)
class TopLane:
    """One lane: events waiting in Redis, by how many that changed and how many were published, both per second."""

    lane: str
    waiting: int
    change: float
    arrivals: float | None
    failures: int
    state: str


@dataclass(frozen=True, slots=True)
class Top:
    """A consumer over the last ``seconds``: records published and accepted per second (None: of no topic), and its lanes.

    What only detached lanes have not accepted counts as accepted.
    """

    consumer: str
    seconds: float
    published: float | None
    accepted: float | None
    behind: int | None
    ready: int
    claimed: int
    failing: int
    sink_failures: int
    detached: Counts
    lanes: list[TopLane]


@dataclass(slots=True)
class _Sample:
    at: float
    ends: Mapping[str, Mapping[int, Range]] = field(default_factory=dict)
    committed: int = 0
    lengths: Mapping[str, int] = field(default_factory=dict)


@click.command()
@click.argument("consumer")
@click.option("--most", default=20, show_default=True, help="Lanes to show, at most.")
@click.option("--interval", default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Look for one interval, print, and end.")
@click.option("--json", "as_json", is_flag=True, help="For programs; looks once.")
def top(consumer: str, most: int, interval: float, once: bool, as_json: bool) -> None:
    """The lanes of CONSUMER with the most events waiting, then those that get the most; refreshed until Ctrl-C.

    Arrivals are counted in Kafka as they are published, by merchant, so a busy lane shows although its events wait for a
    moment only. It reads what is published meanwhile once more; nobody is disturbed.

    \b
    Examples:
      pipeline lanes top search
      pipeline lanes top search --once --interval 10
      pipeline lanes top tasks --json
    """
    with opened(consumer) as ground:
        look = Looks(ground, most)
        time.sleep(interval)
        found = look.again()
        if as_json:
            click.echo(json.dumps(asdict(found)))
        elif once:
            Console(width=None if sys.stdout.isatty() else 140).print(_screen(found))
        else:
            _refresh(look.again, found, interval)


def _refresh(look: Callable[[], Top], first: Top, interval: float) -> None:
    with suppress(KeyboardInterrupt), Live(_screen(first), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(interval)
            live.update(_screen(look()), refresh=True)


class Looks:
    """Looks again and again; each tells what changed since the one before."""

    def __init__(self, ground: Ground, most: int) -> None:
        self._ground = ground
        self._most = most
        overview = ground.store.overview(most)
        self._before = self._sample(dict(overview.longest))

    def again(self) -> Top:
        """How the lanes stand now, and the rates since the last look."""
        ground, before = self._ground, self._before
        overview = ground.store.overview(self._most)
        after = self._sample({})
        arrivals = self._arrivals(before, after)
        names = [name for name, _ in overview.longest]
        names += [name for name, _ in arrivals.most_common(self._most) if name not in names]
        views = ground.views.described(names)
        after.lengths = {view.name: view.length for view in views}
        self._before = after
        took = max(0.001, after.at - before.at)
        lanes = sorted(
            (self._lane(view, before, arrivals, took) for view in views),
            key=lambda lane: (-lane.waiting, -(lane.arrivals or 0), lane.lane),
        )
        return self._top(overview, before, after, took, lanes[: self._most])

    def _top(
        self, overview: Overview, before: _Sample, after: _Sample, took: float, lanes: list[TopLane]
    ) -> Top:
        read = not self._ground.of_tasks
        ends, former = _total(after), _total(before)
        return Top(
            self._ground.consumer,
            round(took, 3),
            published=round((ends - former) / took, 1) if read else None,
            accepted=round((after.committed - before.committed) / took, 1) if read else None,
            behind=max(0, ends - after.committed) if read else None,
            ready=overview.ready,
            claimed=overview.claimed,
            failing=overview.failing_count,
            sink_failures=overview.sink_failures,
            detached=lane_views.counts(self._ground.database).get(self._ground.consumer, Counts()),
            lanes=lanes,
        )

    def _lane(self, view: LaneView, before: _Sample, arrivals: Counter[str], took: float) -> TopLane:
        change = (view.length - before.lengths.get(view.name, view.length)) / took
        rate = None if self._ground.of_tasks else round(arrivals[view.name] / took, 1)
        return TopLane(view.name, view.length, round(change, 1), rate, view.failures, _state(view))

    def _sample(self, lengths: Mapping[str, int]) -> _Sample:
        ground = self._ground
        if ground.of_tasks:
            return _Sample(time.monotonic(), lengths=lengths)
        committed = progress.lag(ground.settings, ground.consumer)
        ends = {topic: ground.reader(topic).bounds() for topic in ground.topics.names}
        return _Sample(time.monotonic(), ends, sum(at or 0 for at, _ in committed.values()), lengths)

    def _arrivals(self, before: _Sample, after: _Sample) -> Counter[str]:
        """Records published between the two, by lane."""
        found: Counter[str] = Counter()
        for number, (topic, ends) in enumerate(after.ends.items()):
            parts = {
                partition: Range(former.end, ends[partition].end)
                for partition, former in before.ends[topic].items()
                if partition in ends
            }
            keys = Counter(
                record.key
                for window in self._ground.reader(topic).read(parts)
                for records in window.values()
                for record in records
            )
            for key, count in keys.items():
                merchant = merchant_of_key(key)
                if merchant is not None:
                    found[lane_of(merchant, snapshot=number > 0)] += count
        return found


def _total(sample: _Sample) -> int:
    return sum(part.end for parts in sample.ends.values() for part in parts.values())


def _state(view: LaneView) -> str:
    if view.parked is not None:
        return "parked"
    if view.failures:
        return "failing"
    if view.claim is not None:
        return "claimed"
    return "waits" if view.length else ""


def _screen(found: Top) -> Group:
    table = Table(box=None, header_style="bold")
    table.add_column("lane")
    for title in ("waiting", "change/s", "arrivals/s", "failures"):
        table.add_column(title, justify="right")
    table.add_column("state")
    for lane in found.lanes:
        arrivals = "" if lane.arrivals is None else f"{lane.arrivals:,.1f}"
        cells = (
            lane.lane,
            f"{lane.waiting:,}",
            f"{lane.change:+,.1f}",
            arrivals,
            lane.failures or "",
            lane.state,
        )
        table.add_row(*map(cell, cells))
    return Group(*_lines(found), table)


def _lines(found: Top) -> Sequence[Text]:
    lines = [
        f"{found.consumer}: {found.ready:,} lanes ready, {found.claimed:,} claimed, {found.failing:,} failing; detached:"
        f" {found.detached.parked:,} parked, {found.detached.paused:,} paused, {found.detached.running:,} running"
    ]
    if found.published is not None:
        lines.append(
            f"published {found.published:,.1f}/s, accepted {found.accepted:,.1f}/s, behind {found.behind:,} beside detached lanes"
        )
    made = [Text(line) for line in lines]
    if found.sink_failures:
        made.append(Text(f"the sink does not accept, tried {found.sink_failures} times", style="red"))
    return made
