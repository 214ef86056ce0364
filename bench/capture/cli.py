"""``pipeline bench capture``."""

from __future__ import annotations

from pathlib import Path

import click

from bench.capture.report import show
from bench.capture.result import PARTS
from bench.capture.run import Plan, Run
from bench.capture.site import CaptureSite
from bench.running import prepared, running
from bench.screen import progress, write


@click.command()
@click.option(
    "--rows",
    type=click.IntRange(min=1000),
    default=200_000,
    show_default=True,
    help="Changes relayed in a round.",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often; the median counts."
)
@click.option(
    "--seconds", type=click.FloatRange(min=5), default=30.0, show_default=True, help="Of the latency run."
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(PARTS),
    help="Only this; may be repeated.  [default: all]",
)
@click.option("--quick", is_flag=True, help="A trial of two minutes; its figures mean little.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write {figure: number}."
)
@click.option("--keep", is_flag=True, help="Leave databases, topics and logs for a look.")
@click.option(
    "--anyway", is_flag=True, help="Run beside other work, to try the bench itself: no JSON is written."
)
def capture(
    rows: int,
    rounds: int,
    seconds: float,
    parts: tuple[str, ...],
    quick: bool,
    json_file: Path | None,
    keep: bool,
    anyway: bool,
) -> None:
    """Capture alone: what triggers cost writers, how fast and how soon the relay reaches Kafka, its memory.

    What each figure is: docs/benchmarks.md.
    """
    plan = Plan(rows, rounds, seconds, parts=parts or PARTS)
    plan = plan.quick() if quick else plan
    with prepared(anyway=anyway) as (variables, console, beside):
        with running(CaptureSite, variables, console, keep=keep) as site, progress() as say:
            result = Run(site, plan, say).run()
        show(result, plan, console, beside)
        write(json_file, result.figures(), beside, console)
