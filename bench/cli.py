"""``pipeline bench``: measure, print, write figures."""

from __future__ import annotations

from pathlib import Path

import click

from bench.capture.cli import capture
from bench.deployment import Deployment
from bench.e2e import Plan, Run
from bench.lanes.cli import lanes
from bench.report import show
from bench.running import prepared, running
from bench.screen import progress, write


@click.group()
def bench() -> None:
    """Measure the pipeline on this machine's services; from a checkout of the repository."""


bench.add_command(capture)
bench.add_command(lanes)


@bench.command()
@click.option(
    "--rows", type=click.IntRange(min=1000), default=200_000, show_default=True, help="Changes per round."
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often; the median counts."
)
@click.option(
    "--seconds", type=click.FloatRange(min=5), default=60.0, show_default=True, help="Of the latency run."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    help="Changes/s of the latency run.  [default: half of what drained]",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write {figure: number}."
)
@click.option("--keep", is_flag=True, help="Leave databases, topic, indices, schema and logs for a look.")
@click.option(
    "--anyway", is_flag=True, help="Run beside other work, to try the bench itself: no JSON is written."
)
def e2e(
    rows: int,
    rounds: int,
    seconds: float,
    rate: float | None,
    json_file: Path | None,
    keep: bool,
    anyway: bool,
) -> None:
    """The whole way: changes committed beforehand drained to searchable, then latency at half that rate.

    Search and warehouse consumers run. What each figure is: docs/benchmarks.md.
    """
    with prepared(anyway=anyway) as (variables, console, beside):
        with running(Deployment, variables, console, keep=keep) as deployment, progress() as say:
            result = Run(deployment, Plan(rows, rounds, seconds, rate), say).run()
        show(result, console, beside)
        write(json_file, result.figures(), beside, console)
