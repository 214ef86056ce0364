"""``pipeline lanes start-over``: the consumer's topics are others by now."""

from __future__ import annotations

import getpass
from contextlib import closing

import click

from pipeline.bridge import start
from pipeline.bridge.progress import view_of
from pipeline.cli.lanes_answers import confirmed
from pipeline.cli.lanes_options import refuse_tasks, yes_option
from pipeline.cli.lanes_places import Ground, opened
from pipeline.control import identities, lane_views
from pipeline.control.identities import Identity


@click.command("start-over")
@click.argument("consumer")
@click.option("--reason", required=True, help="Why; it is kept in the record of actions.")
@click.option("--dry-run", is_flag=True, help="Tell what would be forgotten; change nothing.")
@yes_option
def start_over(consumer: str, reason: str, dry_run: bool, yes: bool) -> None:
    """Forget every place that CONSUMER had in its topics, and begin at the first record that they have now.

    For topics that were deleted and made anew, or a cluster that is gone for good: offsets of the former topics mean
    nothing in these. Its lanes in Redis are emptied, its detached lanes and open requests end, its group is set to the
    beginning. What the former topics had and no sink has accepted is lost: snapshot every source afterwards. Every
    bridge of CONSUMER must be stopped. Killed on the way: run it again.

    \b
    Example:
      pipeline lanes start-over search --reason "Kafka rebuilt, ticket 17" --dry-run
      pipeline lanes start-over search --reason "Kafka rebuilt, ticket 17"

    Exits with 0 when it is done, 1 when it was refused or a service did not answer, 2 for wrong use.
    """
    with opened(consumer) as ground:
        refuse_tasks(ground, "start-over")
        _tell(ground)
        if dry_run:
            return
        confirmed(yes, f"forget where {consumer} was, and begin at the first record there is?")
        found = start.start_over(ground.settings, consumer)
        ground.store.clear()
        places = [(place.topic, place.partition) for place in map(ground.topics.place, ground.topics.numbers)]
        identities.start_over(
            ground.database, consumer, places, found, actor=getpass.getuser(), reason=reason
        )
    click.echo(
        f"{consumer} begins at the first record of each partition: start its bridges, then snapshot every source"
    )


def _tell(ground: Ground) -> None:
    known = identities.known(ground.database, ground.consumer)
    with closing(view_of(ground.settings, ground.consumer)) as view:
        found = view.identities()
        beginnings, ends = view.beginnings(), view.ends()
    for topic in ground.topics.names:
        click.echo(_compared(topic, known.get(topic), found.get(topic)))
    lanes = lane_views.counts(ground.database).get(ground.consumer)
    click.echo(f"detached lanes that are forgotten: {lanes.detached if lanes else 0:,}")
    records = sum(ends[number] - first for number, first in beginnings.items())
    click.echo(f"records that are delivered, perhaps again: {records:,}")


def _compared(topic: str, known: Identity | None, found: Identity | None) -> str:
    if found is None:
        return f"{topic}: does not exist"
    if known is None:
        return f"{topic}: {found}; nothing is noted of a former one"
    if known.differs(found):
        return f"{topic}: was {known}, is {found}"
    return f"{topic}: {found}, the same that its offsets belong to"
