"""What the verbs of ``pipeline lanes`` share: their options, and the way from an order to its answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from pipeline.cli.lanes_answers import carry_out, confirmed, preview
from pipeline.cli.lanes_places import Ground, Standing
from pipeline.cli.lanes_plans import Order, plans
from pipeline.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Asking:
    """What every verb is told. ``wait``: seconds for the bridge's answer; None: do not wait."""

    consumer: str
    merchants: Sequence[str]
    reason: str
    dry_run: bool
    wait: float | None


def asking(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb its arguments and options; it gets them as one ``Asking``, its own ones beside."""

    @wraps(function)
    def asked(
        consumer: str,
        merchants: Sequence[str],
        reason: str,
        dry_run: bool,
        no_wait: bool,
        timeout: float,
        **own: Any,
    ) -> None:
        function(Asking(consumer, merchants, reason, dry_run, None if no_wait else timeout), **own)

    for option in reversed(_OPTIONS):
        asked = option(asked)
    return asked


_OPTIONS = (
    click.argument("consumer"),
    click.argument("merchants", nargs=-1, metavar="[MERCHANT]..."),
    click.option("--reason", required=True, help="Why; it is kept in the record of actions."),
    click.option("--dry-run", is_flag=True, help="Count the events that it would concern; change nothing."),
    click.option("--no-wait", is_flag=True, help="Ask, print the request's number, and leave."),
    click.option(
        "--timeout", default=60.0, show_default=True, help="Seconds to wait for the bridge's answer."
    ),
)
snapshot_option = click.option(
    "--snapshot", is_flag=True, help="The merchant's lane of rows that snapshots read, not that of changes."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def do(ground: Ground, ask: Asking, order: Order, lanes: Sequence[Standing]) -> None:
    """Carry the order out, or with --dry-run only count; exits."""
    made = plans(ground, order, lanes, count=ask.dry_run)
    if ask.dry_run:
        preview(ground, order.verb, made)
        return
    sys.exit(carry_out(ground, made, ask.reason, ask.wait))


def do_counted(ground: Ground, ask: Asking, order: Order, lanes: Sequence[Standing], *, yes: bool) -> None:
    """Show what the order concerns, ask whether that is meant, and carry it out; exits."""
    made = plans(ground, order, lanes, count=True)
    preview(ground, order.verb, made)
    if ask.dry_run:
        return
    confirmed(yes, f"{order.verb} {', '.join(plan.standing.lane for plan in made)}?")
    sys.exit(carry_out(ground, made, ask.reason, ask.wait))


def concerned(lanes: Sequence[Standing], by: Callable[[Standing], bool]) -> list[Standing]:
    """Of each merchant the lanes that an order concerns; one of a merchant's when it concerns none, so that it is said."""
    kept: list[Standing] = []
    for merchant in dict.fromkeys(one.merchant for one in lanes):
        mine = [one for one in lanes if one.merchant == merchant]
        kept += [one for one in mine if by(one)] or mine[:1]
    return kept


def require_merchants(ask: Asking, *, offset: bool = False) -> None:
    """UsageError without merchants, or with an `offset` for several."""
    if not ask.merchants:
        raise click.UsageError("name the merchant")
    if offset and len(ask.merchants) > 1:
        raise click.UsageError(
            "an offset is a place in one merchant's partition: name one merchant, or give a time"
        )


def require_one(ask: Asking, option: str, *, given: bool) -> None:
    """UsageError unless either merchants are named or the `option` for all is `given`."""
    if bool(ask.merchants) == given:
        raise click.UsageError(f"name merchants, or {option}")


def refuse_tasks(ground: Ground, verb: str) -> None:
    """PermanentError for lanes of Celery tasks."""
    if ground.of_tasks:
        raise PermanentError(
            f"{verb}: lanes of tasks hold Celery messages, which are in no topic and have no bridge",
            hint="stop the workers of queue tasks to hold them; app.control.revoke(id) takes one task away",
        )
