"""``pipeline lanes pause``, ``resume``, ``release``, ``resync``, ``withdraw``: what people ask of the bridges."""

from __future__ import annotations

import getpass
from contextlib import closing

import click

from pipeline import settings as configuration
from pipeline.cli.lanes_answers import hold
from pipeline.cli.lanes_options import (
    Asking,
    asking,
    concerned,
    do,
    refuse_tasks,
    require_merchants,
    require_one,
)
from pipeline.cli.lanes_places import opened
from pipeline.cli.lanes_plans import Order
from pipeline.control import detached, requests
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.domain.routing import merchant_of_lane
from pipeline.errors import PermanentError


@click.command()
@asking
@click.option("--all", "whole", is_flag=True, help="Hold the whole consumer, every merchant.")
def pause(ask: Asking, whole: bool) -> None:
    """Stop deliveries of CONSUMER to each MERCHANT. Nothing is lost: events wait in Kafka until resume.

    A turn that a worker has in hand ends as it ends; none begins after it. Events keep their order, other merchants go
    on. It holds both lanes of a merchant, of changes and of rows that snapshots read. At half of the topic's retention
    bridges copy what waits to S3, so it may wait for longer.

    Sweeps wait behind it, for everybody: what a TRUNCATE or a snapshot removes in bulk is removed from CONSUMER's sink
    only when every lane of every partition has passed it, those that are paused or parked too. See Sweeps waiting in
    pipeline status.

    With --all bridges of CONSUMER read nothing new; what lies in its lanes already is still delivered. To stop that too,
    stop its workers.

    \b
    Examples:
      pipeline lanes pause search 42 --reason "index of 42 is being rebuilt"
      pipeline lanes pause webhooks 42 43 --reason "they asked to" --dry-run
      pipeline lanes pause webhooks --all --reason "wrong endpoint deployed"

    Exits with 0 when it is done, 1 when it was refused, 2 for wrong use, 3 when no bridge has answered: the request stays.
    """
    require_one(ask, "--all", given=whole)
    with opened(ask.consumer, ask.merchants) as ground:
        refuse_tasks(ground, "pause")
        if whole:
            hold(ground, "pause", ask.reason, ask.dry_run)
            return
        lanes = ground.standings(ask.merchants)
        ground.require_seen(lanes)
        # One that runs is paused beside one that is paused already.
        do(
            ground,
            ask,
            Order("pause"),
            concerned(lanes, lambda one: one.row is None or one.row.state != "paused"),
        )


@click.command()
@asking
@click.option("--all", "whole", is_flag=True, help="Let the whole consumer go on that is paused by --all.")
def resume(ask: Asking, whole: bool) -> None:
    """Deliver again to each MERCHANT of CONSUMER that is paused: all that came meanwhile, in order, then live.

    A cursor reads the merchant's events from where it stands; deliveries to others do not wait for it. Lanes that are
    parked are not resumed but released.

    \b
    Examples:
      pipeline lanes resume search 42 --reason "index rebuilt" --dry-run
      pipeline lanes resume search 42 --reason "index rebuilt"
      pipeline lanes resume webhooks --all --reason "endpoint mended"

    Exits with 0 when it is done, 1 when it was refused, 2 for wrong use, 3 when no bridge has answered: the request stays.
    """
    require_one(ask, "--all", given=whole)
    with opened(ask.consumer, ask.merchants) as ground:
        refuse_tasks(ground, "resume")
        if whole:
            hold(ground, "resume", ask.reason, ask.dry_run)
            return
        lanes = ground.standings(ask.merchants)
        ground.require_seen(lanes)
        do(ground, ask, Order("resume"), concerned(lanes, lambda one: one.state == "paused"))


@click.command()
@asking
@click.option("--all-parked", is_flag=True, help="Every lane of the consumer that is parked.")
def release(ask: Asking, all_parked: bool) -> None:
    """Try each parked MERCHANT of CONSUMER again, from the event at which it was parked.

    First mend what the reason names (pipeline lanes show): an event that fails again parks the lane again. An event
    that can never be accepted is left out with pipeline lanes skip.

    \b
    Examples:
      pipeline lanes release search 42 --reason "mapping mended"
      pipeline lanes release webhooks --all-parked --reason "their endpoints are back" --dry-run

    Exits with 0 when it is done, 1 when it was refused, 2 for wrong use, 3 when no bridge has answered: the request stays.
    """
    require_one(ask, "--all-parked", given=all_parked)
    with opened(ask.consumer, ask.merchants) as ground:
        refuse_tasks(ground, "release")
        if all_parked:
            parked = detached.rows(ground.database, ask.consumer, states=["parked"])
            names = {row.lane for row in parked}
            merchants = list(dict.fromkeys(merchant_of_lane(row.lane) for row in parked))
            lanes = [one for one in ground.standings(merchants) if one.lane in names]
        else:
            lanes = ground.standings(ask.merchants)
            ground.require_seen(lanes)
            lanes = concerned(lanes, lambda one: one.state == "parked")
        if not lanes:
            click.echo(f"no lane of {ask.consumer} is parked")
            return
        do(ground, ask, Order("release"), lanes)


@click.command()
@asking
def resync(ask: Asking) -> None:
    """Empty the lanes of each MERCHANT of CONSUMER in Redis and read what is not accepted from Kafka again.

    Nothing is lost or left out; what a worker has in hand may come twice. For a lane that stands without a reason, or
    whose list in Redis somebody has touched. Damage that bridges see by themselves is mended so by themselves.

    \b
    Example:
      pipeline lanes resync search 42 --reason "its list was deleted by hand"

    Exits with 0 when it is done, 1 when it was refused, 2 for wrong use, 3 when no bridge has answered: the request stays.
    """
    require_merchants(ask)
    with opened(ask.consumer, ask.merchants) as ground:
        refuse_tasks(ground, "resync")
        lanes = ground.standings(ask.merchants)
        ground.require_seen(lanes)
        do(ground, ask, Order("resync"), concerned(lanes, lambda one: one.row is not None or one.view.known))


@click.command()
@click.argument("id", type=int)
def withdraw(id: int) -> None:
    """Take back request ID, which no bridge has carried out yet.

    \b
    Example:
      pipeline lanes withdraw 17

    Exits with 1 when there is no such request any more.
    """
    settings = configuration.load()
    with closing(ControlDatabase(settings.environment.control_database_url.get_secret_value())) as database:
        require_migrated(database)
        withdrawn = requests.withdraw(database, id, actor=getpass.getuser())
        found = None if withdrawn else requests.outcome(database, id)
    if not withdrawn:
        state = "there is none, or it ended long ago" if found is None else "it has ended already"
        raise PermanentError(
            f"request {id} cannot be withdrawn: {state}", hint="see: pipeline lanes show CONSUMER MERCHANT"
        )
    click.echo(f"request {id} is withdrawn; nothing was changed by it")
