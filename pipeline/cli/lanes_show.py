"""``pipeline lanes show``: everything about one merchant's lanes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import click
from rich.console import Console
from rich.table import Table

from pipeline.bridge.ranges import Range
from pipeline.cli.lanes_events import ShownEvent, event_at
from pipeline.cli.lanes_places import Ground, Standing, opened
from pipeline.cli.terminal import cell, duration, moment, since
from pipeline.control import lane_views
from pipeline.control.lane_views import Action, PastRequest
from pipeline.replay.tally import begins
from pipeline.settings import seconds

_RECENT = 10


@dataclass(frozen=True, slots=True)
class ShownLane:
    """One lane, the event at which it stands, and until when Kafka keeps that, about."""

    standing: Standing
    event: ShownEvent | None
    kept_until: datetime | None


@click.command()
@click.argument("consumer")
@click.argument("merchant")
@click.option("--payload", is_flag=True, help="Also the event itself as it came, with the values of its row.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(consumer: str, merchant: str, payload: bool, as_json: bool) -> None:
    """Everything about the lanes of MERCHANT at CONSUMER: where each stands, why, what it waits for, what people did.

    The event at which a lane stands is named by type, key, version and age. Values of rows are shown with --payload
    only.

    \b
    Examples:
      pipeline lanes show search 42
      pipeline lanes show webhooks 42 --payload
      pipeline lanes show search 42 --json

    Exits with 1 when nothing was ever seen of the merchant, or a service does not answer.
    """
    with opened(consumer, [merchant]) as ground:
        standings = ground.standings([merchant])
        ground.require_seen(standings)
        lanes = [_shown(ground, one, payload=payload) for one in standings]
        names = [one.lane for one in standings]
        asked = lane_views.past_requests(ground.database, consumer, names, _RECENT)
        done = lane_views.past_actions(ground.database, consumer, names, _RECENT)
    if as_json:
        click.echo(json.dumps(_plain(consumer, merchant, lanes, asked, done), default=str))
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    for lane in lanes:
        console.print(_table(consumer, lane))
        if lane.event is not None and lane.event.payload is not None:
            console.print(cell(lane.event.payload), soft_wrap=True)
    for table in (_requests(asked), _actions(done)):
        if table.row_count:
            console.print(table)


def _shown(ground: Ground, standing: Standing, *, payload: bool) -> ShownLane:
    event = event_at(ground, standing, payload=payload)
    return ShownLane(standing, event, None if standing.row is None else _kept_until(ground, standing))


def _kept_until(ground: Ground, standing: Standing) -> datetime | None:
    place, first = standing.place, ground.first_of(standing)
    if place is None:
        return None
    published = begins(ground.reader(place.topic), place.partition, Range(first, ground.bounds(place).end))
    (topic,) = (one for one in ground.settings.topics_of(ground.consumer) if one.topic == place.topic)
    return None if published is None else published + timedelta(seconds=seconds(topic.retention))


def _plain(
    consumer: str,
    merchant: str,
    lanes: Sequence[ShownLane],
    asked: Sequence[PastRequest],
    done: Sequence[Action],
) -> dict[str, object]:
    return {
        "consumer": consumer,
        "merchant": merchant,
        "lanes": [
            {
                "lane": one.standing.lane,
                "state": one.standing.state,
                "topic": one.standing.place and one.standing.place.topic,
                "partition": one.standing.place and one.standing.place.partition,
                "first": one.standing.first,
                "detached": one.standing.row and asdict(one.standing.row),
                "redis": asdict(one.standing.view),
                "event": one.event and asdict(one.event),
                "kept_until": one.kept_until,
            }
            for one in lanes
        ],
        "requests": [asdict(one) for one in asked],
        "actions": [asdict(one) for one in done],
    }


def _table(consumer: str, lane: ShownLane) -> Table:
    table = Table(
        title=cell(f"Lane {lane.standing.lane} of {consumer}"),
        title_justify="left",
        box=None,
        show_header=False,
    )
    table.add_column("what", style="bold")
    table.add_column("value", overflow="fold")
    for what, value in _facts(lane):
        table.add_row(what, cell(value))
    return table


def _facts(lane: ShownLane) -> Iterator[tuple[str, str]]:
    standing = lane.standing
    yield "state", _state(standing)
    if standing.place is not None:
        yield "partition", f"{standing.place.partition} of {standing.place.topic}"
    if standing.row is not None:
        row = standing.row
        yield "stands at", f"offset {row.first:,}: everything below is accepted"
        if row.until is not None:
            yield "live again from", f"offset {row.until:,}"
        yield "incarnation", str(row.incarnation)
    yield from _redis_facts(standing)
    if lane.kept_until is not None:
        left = lane.kept_until - datetime.now(UTC)
        yield (
            "Kafka keeps this",
            f"until about {moment(lane.kept_until)}, {duration(left.total_seconds())} more",
        )
    yield "next event", _event(lane.event)


def _state(standing: Standing) -> str:
    row = standing.row
    if row is None:
        if standing.view.parked is not None:
            return f"parked, its bridge has not put it aside yet: {standing.view.parked}"
        return "failing" if standing.view.failures else "healthy"
    fed = " (detached, a cursor feeds it)" if row.state == "running" else ""
    return f"{row.state}{fed} for {since(row.since)}, since {moment(row.since)}: {row.reason}"


def _redis_facts(standing: Standing) -> Iterator[tuple[str, str]]:
    view = standing.view
    if not view.known:
        yield "in Redis", "nothing"
        return
    yield "in Redis", f"{view.length:,} events wait"
    yield "enqueued, acknowledged", f"{_number(view.enqueued)}, {_number(view.acknowledged)}"
    if standing.row is None:
        yield "incarnation", _number(view.incarnation)
    if view.claim is not None:
        lease = (
            "its lease is gone"
            if view.claim.remaining is None
            else f"lease {duration(view.claim.remaining)} more"
        )
        yield "claimed", f"by turn {view.claim.token} for {duration(view.claim.age)}; {lease}"
    elif view.waits is not None:
        yield "next turn", "due" if view.waits == 0 else f"in {duration(view.waits)}"
    if view.failures:
        yield "failed", f"{view.failures} times: {view.reason}"
    if view.not_before is not None:
        yield "tried again", f"in {duration(view.not_before)}"


def _event(event: ShownEvent | None) -> str:
    if event is None:
        return "none waits where it stands"
    if event.key is None:
        return f"offset {event.offset:,}: {event.what}"
    parts = [f"offset {event.offset:,}: {event.what}, type {event.type}"]
    if event.op is not None:
        parts.append(f"op {event.op}")
    parts.append(f"key {event.key}" if event.version is not None else f"id {event.key}")
    if event.version is not None:
        parts.append(f"version {event.version}")
    if event.at is not None:
        parts.append(f"{since(event.at)} old")
    return ", ".join(parts)


def _number(value: int | None) -> str:
    return "missing" if value is None else f"{value:,}"


def _requests(asked: Sequence[PastRequest]) -> Table:
    table = _grid("Requests", "id", "lane", "verb", "to", "by", "asked", "became", "reason")
    for one in asked:
        became = "waits for a bridge" if one.finished_at is None else f"refused: {one.refusal}"
        if one.finished_at is not None and one.refusal is None:
            became = f"done {moment(one.finished_at)}"
        cells = (
            one.id,
            one.lane,
            one.verb,
            one.offset,
            one.actor,
            moment(one.requested_at),
            became,
            one.reason,
        )
        table.add_row(*map(cell, cells))
    return table


def _actions(done: Sequence[Action]) -> Table:
    table = _grid("Actions", "at", "by", "verb", "subject", "reason")
    for one in done:
        table.add_row(*map(cell, (moment(one.at), one.actor, one.verb, one.subject, one.reason)))
    return table


def _grid(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
