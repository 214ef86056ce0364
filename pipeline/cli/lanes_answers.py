"""From a plan to what became of it: shown, confirmed, asked, and waited for."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Mapping, Sequence

import click
from rich.console import Console
from rich.table import Table

from pipeline.bridge.ranges import Range
from pipeline.cli.lanes_places import Ground
from pipeline.cli.lanes_plans import EFFECTS, Plan
from pipeline.cli.terminal import cell, moment, plain
from pipeline.control import detached, lane_views, requests
from pipeline.ports import Verb

UNANSWERED = 3
_LOOK_EVERY, _LONELY_AFTER = 0.2, 5.0


def preview(ground: Ground, verb: Verb, plans: Sequence[Plan]) -> None:
    """Which events the plans concern, from where to where."""
    table = Table(title=f"Events of {ground.consumer} that {EFFECTS[verb]}", title_justify="left", box=None)
    table.add_column("lane")
    table.add_column("now")
    table.add_column("events", justify="right")
    for title in ("first", "last", "partition"):
        table.add_column(title)
    for plan in plans:
        events, place = plan.events, plan.standing.place
        if events is None or place is None:
            continue
        ends = [f"{one.offset} ({moment(one.at)})" if one else "" for one in (events.first, events.last)]
        cells = (plan.standing.lane, plan.standing.state, f"{events.events:,}", *ends)
        table.add_row(*map(cell, cells), cell(f"{place.topic} {place.partition}"))
    _console().print(table)


def confirmed(yes: bool, question: str) -> None:
    """Ask, unless told not to; UsageError when nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            "nobody is there to confirm: give --yes once the counts above are what you want"
        )
    click.confirm(question, abort=True)


def carry_out(ground: Ground, plans: Sequence[Plan], reason: str, wait: float | None) -> int:
    """Ask for the plans, wait up to so many seconds for their bridges (None: not at all), tell; returns the exit code."""
    actor = getpass.getuser()
    ids = requests.ask(ground.database, [plan.asked(ground.consumer, actor, reason) for plan in plans])
    asked = dict(zip(ids, plans, strict=True))
    if wait is None:
        for id_, plan in asked.items():
            click.echo(f"request {id_}: {plan.verb} {plan.standing.lane} of {ground.consumer}")
        return 0
    answers = _await(ground, list(asked), wait)
    for id_, refusal in sorted(answers.items()):
        _tell(ground, asked[id_], refusal)
    open_ = [id_ for id_ in asked if id_ not in answers]
    if open_:
        _tell_unanswered(ground, open_)
        return UNANSWERED
    return 1 if any(refusal is not None for refusal in answers.values()) else 0


def _await(ground: Ground, ids: Sequence[int], wait: float) -> dict[int, str | None]:
    """The refusals, or None, of those that ended in time; it gives up early when no bridge beats."""
    began = time.monotonic()
    with Console(stderr=True).status("waiting for the bridge"):
        while True:
            answers = lane_views.answers(ground.database, ids)
            waited = time.monotonic() - began
            if len(answers) == len(ids) or waited >= wait:
                return answers
            if waited >= _LONELY_AFTER and not ground.bridges():
                return answers
            time.sleep(_LOOK_EVERY)


def _tell(ground: Ground, plan: Plan, refusal: str | None) -> None:
    lane = f"{ground.consumer} {plan.standing.lane}"
    if refusal is not None:
        click.echo(f"{lane}: refused: {plain(refusal)}; nothing was changed", err=True)
        return
    rows = detached.rows(ground.database, ground.consumer, lanes=[plan.standing.lane])
    if not rows:
        click.echo(f"{lane}: {plan.verb} done; it runs")
        return
    (row,) = rows
    now = "it runs" if row.state == "running" else f"it is {row.state}"
    click.echo(f"{lane}: {plan.verb} done; {now}, everything below offset {row.first} is accepted")


def _tell_unanswered(ground: Ground, ids: Sequence[int]) -> None:
    running = ground.bridges()
    why = "has not answered yet" if running else "does not run"
    ways = " or ".join(f"pipeline lanes withdraw {id_}" for id_ in ids[:3])
    click.echo(
        f"the bridge of {ground.consumer} {why}: request {', '.join(map(str, ids))} stays, and is carried out when it"
        f" {'does' if running else 'is started'}. Not wanted any more: {ways}",
        err=True,
    )


def hold(ground: Ground, verb: Verb, reason: str, dry_run: bool) -> None:
    """Pause or resume the whole consumer."""
    pause = requests.paused(ground.database, ground.consumer)
    if pause is not None and verb == "pause":
        raise click.ClickException(
            f"{ground.consumer} is paused already, by {plain(pause.actor)} since {moment(pause.since)}: {plain(pause.reason)}"
        )
    if pause is None and verb == "resume":
        raise click.ClickException(
            f"{ground.consumer} is not paused as a whole; single lanes: pipeline lanes list {ground.consumer}"
        )
    if dry_run:
        _preview_whole(ground, verb)
    elif verb == "pause":
        requests.pause_consumer(ground.database, ground.consumer, actor=getpass.getuser(), reason=reason)
        click.echo(f"{ground.consumer} is paused: its bridges read nothing new from now on")
    else:
        requests.resume_consumer(ground.database, ground.consumer, actor=getpass.getuser(), reason=reason)
        click.echo(f"{ground.consumer} goes on where it was")


def _preview_whole(ground: Ground, verb: Verb) -> None:
    behind = sum(max(0, part.end - at) for part, at in _behind(ground))
    what = "would wait, and all that come after them" if verb == "pause" else "would be delivered"
    click.echo(f"{behind:,} records of {ground.consumer} that are not accepted yet {what}")


def _behind(ground: Ground) -> list[tuple[Range, int]]:
    places: Mapping[int, int] = ground.committed
    return [(ground.bounds(ground.topics.place(number)), at) for number, at in places.items()]


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140)
