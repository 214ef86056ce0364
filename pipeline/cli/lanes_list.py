"""``pipeline lanes list``: the lanes that are not simply healthy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Literal, TypeVar, get_args

import click
from rich.console import Console
from rich.table import Table

from pipeline.bridge.topics import Place
from pipeline.cli.lanes_places import Ground, opened
from pipeline.cli.terminal import cell, moment, plain, since
from pipeline.control import lane_views, requests
from pipeline.control.detached import DetachedLane
from pipeline.control.requests import OpenRequest, Pause
from pipeline.domain.routing import merchant_of_lane
from pipeline.errors import PipelineError
from pipeline.lanes.view import LaneView
from pipeline.ports import State

T = TypeVar("T")
Kind = Literal["parked", "paused", "running", "failing", "long"]
_LONGEST = 10


@dataclass(frozen=True, slots=True)
class ListedLane:
    """One lane that is worth a look.

    ``behind``: records of its partition, of all merchants, between what it has accepted and the live reader; None when
    Kafka did not answer, and for lanes that are not detached. ``waiting``: its events in Redis. ``reason``: why it is in
    its state, ``failure``: why its last turn failed.
    """

    lane: str
    state: Kind
    reason: str
    since: datetime | None = None
    topic: str | None = None
    partition: int | None = None
    first: int | None = None
    until: int | None = None
    behind: int | None = None
    incarnation: int | None = None
    waiting: int | None = None
    failures: int | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What there is to say of a consumer's lanes; ``problems``: what could not be asked."""

    consumer: str
    pause: Pause | None
    lanes: list[ListedLane]
    requests: list[OpenRequest]
    problems: list[str]


@click.command("list")
@click.argument("consumer")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(get_args(Kind)),
    help="Only lanes in this state; may be given several times.",
)
@click.option("--merchant", "prefix", default="", help="Only merchants whose id begins so.")
@click.option("--limit", default=50, show_default=True, help="Lanes to list, at most.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(consumer: str, states: Sequence[Kind], prefix: str, limit: int, as_json: bool) -> None:
    """The lanes of CONSUMER that are not simply healthy, and the requests that no bridge has carried out.

    \b
    parked   an event failed too often, or for good: a person must look (show), then release or skip
    paused   a person holds it: resume
    running  detached, and a cursor brings it back by itself: it was over its budget, slow, damaged, rewound or resumed
    failing  its last turn failed; it is tried again by itself
    long     healthy, with the most events waiting

    \b
    Examples:
      pipeline lanes list search
      pipeline lanes list search --state parked --state paused
      pipeline lanes list tasks --merchant 4 --json

    Exits with 1 when a service does not answer; what the others know is shown.
    """
    with opened(consumer) as ground:
        listing = _listing(ground, set(states) or set(get_args(Kind)), prefix, limit)
    if as_json:
        click.echo(json.dumps(asdict(listing), default=str))
    else:
        _show(listing)
    sys.exit(1 if listing.problems else 0)


def _listing(ground: Ground, states: set[Kind], prefix: str, limit: int) -> Listing:
    problems: list[str] = []

    def asked(ask: Callable[[], T], otherwise: T) -> T:
        try:
            return ask()
        except PipelineError as error:
            problems.append(plain(error))
            return otherwise

    held: Pause | None = asked(lambda: requests.paused(ground.database, ground.consumer), None)
    waiting: list[OpenRequest] = asked(lambda: requests.open_requests(ground.database, ground.consumer), [])
    rows: list[DetachedLane] = asked(lambda: _detached(ground, states, prefix, limit), [])
    ends: dict[Place, int] = asked(lambda: _ends(ground, rows), {})
    lanes = [_of_row(row, ends) for row in rows]
    lanes = asked(lambda: _with_redis(ground, lanes, states, prefix, limit), lanes)
    mine = [one for one in waiting if merchant_of_lane(one.lane).startswith(prefix)]
    return Listing(ground.consumer, held, lanes[:limit], mine, problems)


def _detached(ground: Ground, states: set[Kind], prefix: str, limit: int) -> list[DetachedLane]:
    chosen: list[State] = [state for state in get_args(State) if state in states]
    return lane_views.detached(ground.database, ground.consumer, prefix=prefix, states=chosen, limit=limit)


def _ends(ground: Ground, rows: Sequence[DetachedLane]) -> dict[Place, int]:
    places = {Place(row.topic, row.partition) for row in rows if row.until is None}
    return {place: ground.bounds(place).end for place in places}


def _of_row(row: DetachedLane, ends: dict[Place, int]) -> ListedLane:
    until = ends.get(Place(row.topic, row.partition)) if row.until is None else row.until
    behind = None if until is None else max(0, until - row.first)
    return ListedLane(
        row.lane, row.state, row.reason, row.since, row.topic, row.partition, row.first, row.until, behind,
        row.incarnation,
    )  # fmt: skip


def _with_redis(
    ground: Ground, lanes: list[ListedLane], states: set[Kind], prefix: str, limit: int
) -> list[ListedLane]:
    """What Redis has of the detached ones, then those that fail, then the longest."""
    views = ground.views.described(one.lane for one in lanes)
    found = [_joined(one, view) for one, view in zip(lanes, views, strict=True)]
    listed = {one.lane for one in found}
    failing = [name for name in ground.views.failing() if merchant_of_lane(name).startswith(prefix)]
    found += [
        _of_view(view, "failing" if view.parked is None else "parked")
        for view in ground.views.described([name for name in failing if name not in listed][:limit])
        if ("failing" if view.parked is None else "parked") in states
    ]
    if "long" in states:
        known = listed | set(failing)
        longest = [name for name, _ in ground.store.overview(_LONGEST).longest if name not in known]
        chosen = [name for name in longest if merchant_of_lane(name).startswith(prefix)]
        found += [_of_view(view, "long") for view in ground.views.described(chosen) if view.length]
    return found


def _joined(lane: ListedLane, view: LaneView) -> ListedLane:
    return replace(lane, waiting=view.length, failures=view.failures, failure=view.reason)


def _of_view(view: LaneView, state: Kind) -> ListedLane:
    first = None if view.acknowledged is None else view.acknowledged + 1
    return ListedLane(
        view.name,
        state,
        view.parked or view.reason,
        first=first,
        waiting=view.length,
        failures=view.failures,
        incarnation=view.incarnation,
    )


def _show(listing: Listing) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    if listing.pause is not None:
        pause = listing.pause
        console.print(
            cell(
                f"the whole consumer is paused by {pause.actor} since {moment(pause.since)}: {pause.reason}",
                "red",
            )
        )
    if listing.lanes:
        console.print(_table(listing))
    else:
        console.print(f"no lane of {listing.consumer} needs a look")
    if listing.requests:
        console.print(_requests(listing.requests))
    for problem in listing.problems:
        console.print(cell(problem, "red"))


def _table(listing: Listing) -> Table:
    table = Table(title=f"Lanes of {listing.consumer}", title_justify="left", box=None, header_style="bold")
    for title in ("lane", "state", "for"):
        table.add_column(title)
    for title in ("stands at", "until", "behind", "waiting", "failures"):
        table.add_column(title, justify="right")
    table.add_column("reason", overflow="fold")
    for one in listing.lanes:
        numbers = (one.first, one.until, one.behind, one.waiting, one.failures)
        table.add_row(
            cell(one.lane),
            cell(one.state, _COLOURS.get(one.state, "")),
            cell(since(one.since) if one.since else ""),
            *(cell("" if number is None else f"{number:,}") for number in numbers),
            cell("; its last turn failed: ".join(filter(None, (one.reason, one.failure)))),
        )
    return table


_COLOURS = {"parked": "red", "failing": "yellow", "paused": "yellow"}


def _requests(waiting: Sequence[OpenRequest]) -> Table:
    table = Table(
        title="Requests that wait for a bridge", title_justify="left", box=None, header_style="bold"
    )
    for title in ("id", "lane", "verb", "to", "by", "since", "reason"):
        table.add_column(title)
    for one in waiting:
        cells = (one.id, one.lane, one.verb, one.offset, one.actor, moment(one.requested_at), one.reason)
        table.add_row(*map(cell, cells))
    return table
