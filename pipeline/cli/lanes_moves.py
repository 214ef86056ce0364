"""``pipeline lanes skip`` and ``rewind``: nothing of it happens before its events are counted and shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from pipeline.cli.lanes_options import (
    Asking,
    asking,
    do_counted,
    refuse_tasks,
    require_merchants,
    snapshot_option,
    yes_option,
)
from pipeline.cli.lanes_places import opened
from pipeline.cli.lanes_plans import Order, place_of


class _Place(click.ParamType[int | datetime]):
    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | datetime:
        """As ``lanes_plans.place_of`` reads it."""
        try:
            return place_of(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@asking
@click.option(
    "--count",
    type=click.IntRange(1),
    help="How many events to leave out, from where the lane stands on; 1 unless --to is given.",
)
@click.option(
    "--to", type=click.IntRange(0), metavar="OFFSET", help="Leave out everything before this offset."
)
@snapshot_option
@yes_option
def skip(ask: Asking, count: int | None, to: int | None, snapshot: bool, yes: bool) -> None:
    """Leave out the next events of each paused or parked MERCHANT of CONSUMER: its sink never gets them.

    The lane stays as it is, paused or parked: release or resume it afterwards. It is refused for a lane that runs, and
    when the lane has moved since the events were counted. For search and warehouse the next change of the same row, or a
    snapshot, brings what was left out; for your own consumers nothing does but rewind.

    \b
    Examples:
      pipeline lanes skip search 42 --reason "cannot be mapped, ticket 17" --dry-run
      pipeline lanes skip search 42 --reason "cannot be mapped, ticket 17"
      pipeline lanes skip webhooks 42 --count 20 --reason "sent by hand" --yes
      pipeline lanes skip webhooks 42 --to 123456 --reason "sent by hand"

    Exits with 0 when it is done, 1 when it was refused, 2 for wrong use, 3 when no bridge has answered: the request stays.
    """
    if count is not None and to is not None:
        raise click.UsageError("--count or --to, not both")
    require_merchants(ask, offset=to is not None)
    _count_and_do(ask, Order("skip", to, None if to is not None else count or 1), snapshot, yes)


@click.command()
@asking
@click.option(
    "--to",
    type=_Place(),
    required=True,
    help="OFFSET, or an ISO 8601 time with its zone: what came from there on.",
)
@snapshot_option
@yes_option
def rewind(ask: Asking, to: int | datetime, snapshot: bool, yes: bool) -> None:
    """Deliver again to each MERCHANT of CONSUMER what it had from a place on, in order, then go on as before.

    Other merchants do not notice. Search and warehouse take an older version of a row for stale: a rewind fills what
    they lack, it changes nothing back. Your own consumers get every event again. A lane that is paused or parked stays so, and
    begins there when it is resumed or released. What passed Kafka's retention comes by a snapshot only.

    \b
    Examples:
      pipeline lanes rewind webhooks 42 --to 2026-03-01T08:00:00Z --reason "their outage" --dry-run
      pipeline lanes rewind webhooks 42 43 --to 2026-03-01T09:00+01:00 --reason "their outage"
      pipeline lanes rewind search 42 --to 123456 --reason "index lost documents" --yes

    Exits with 0 when it is done, 1 when it was refused, 2 for wrong use, 3 when no bridge has answered: the request stays.
    """
    require_merchants(ask, offset=isinstance(to, int))
    _count_and_do(ask, Order("rewind", to), snapshot, yes)


def _count_and_do(ask: Asking, order: Order, snapshot: bool, yes: bool) -> None:
    with opened(ask.consumer, ask.merchants) as ground:
        refuse_tasks(ground, order.verb)
        if snapshot and True not in ground.kinds():
            raise click.UsageError(f"{ask.consumer} takes no rows of snapshots")
        ground.require_seen(ground.standings(ask.merchants))
        lanes = ground.standings(ask.merchants, (snapshot,))
        do_counted(ground, ask, order, lanes, yes=yes)
