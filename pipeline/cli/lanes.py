"""``pipeline lanes``: look at merchants' lanes, and take one in hand."""

from __future__ import annotations

import click

from pipeline.cli.lanes_anew import start_over
from pipeline.cli.lanes_ask import pause, release, resume, resync, withdraw
from pipeline.cli.lanes_list import list_
from pipeline.cli.lanes_moves import rewind, skip
from pipeline.cli.lanes_show import show
from pipeline.cli.lanes_top import top


@click.group()
def lanes() -> None:
    """Merchants' lanes: which need a person, why, and what a person can do.

    A lane is one merchant's queue of one consumer. One that cannot go on with the others is detached: its events wait in
    Kafka, its partition goes on. It is parked when an event of it failed too often, paused when a person holds it, running
    when a cursor brings it back.

    \b
    Paged at night:
      pipeline lanes list search                      which lanes need a person
      pipeline lanes show search 42                   why this one; the event it stands at
      pipeline lanes release search 42 --reason "…"   parked, and the cause is mended
      pipeline lanes skip search 42 --reason "…"      that event can never be accepted
      pipeline lanes pause search 42 --reason "…"     stop deliveries to this merchant now
      pipeline lanes rewind search 42 --to TIME …     deliver again what came since then
      pipeline lanes start-over search --reason "…"   its topics were made anew

    Everything that changes a lane needs --reason, tells with --dry-run what it would do, and is carried out by the
    bridge that holds the merchant's partition, in about a second. What was done stays in the record of actions.

    \b
    Exit codes of all of these:
      0  done, or nothing to do
      1  refused, or a service did not answer: what it says of a lane was not done
      2  wrong use
      3  no bridge has answered: the request stays until one does, or until it is withdrawn
    """


for command in (list_, show, top, pause, resume, release, skip, rewind, resync, withdraw, start_over):
    lanes.add_command(command)
