"""``pipeline bench lanes``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import click
from rich.console import Console

from bench.lanes.report import show
from bench.lanes.result import PARTS, Result
from bench.lanes.run import Plan, Run
from bench.lanes.site import LaneSite
from bench.running import prepared, running
from bench.screen import progress, write


def _parts(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    wanted = PARTS if text is None else tuple(text.split(","))
    if unknown := set(wanted) - set(PARTS):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    return wanted


@click.command()
@click.option(
    "--only", "parts", callback=_parts, metavar="PART,…", help=f"Of {', '.join(PARTS)}.  [default: all]"
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Of latency, and of each trouble.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=5),
    default=40.0,
    show_default=True,
    help="Of a phase.",
)
@click.option(
    "--flood-seconds",
    type=click.FloatRange(min=5),
    default=200.0,
    show_default=True,
    help="Of a phase with a flood.",
)
@click.option(
    "--group",
    type=click.Choice(["1", "50"]),
    help="Lanes in a turn beside trouble.  [default: 50, and 1 beside a slow merchant]",
)
@click.option("--quick", is_flag=True, help="A trial of a few minutes: no JSON is written.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write {figure: number}."
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a picture of each part into this directory.",
)
@click.option("--keep", is_flag=True, help="Leave topics, lanes and logs of the last part for a look.")
@click.option(
    "--anyway", is_flag=True, help="Run beside other work, to try the bench itself: no JSON is written."
)
def lanes(
    parts: tuple[str, ...],
    rounds: int,
    seconds: float,
    flood_seconds: float,
    group: str | None,
    quick: bool,
    json_file: Path | None,
    plots: Path | None,
    keep: bool,
    anyway: bool,
) -> None:
    """Lanes alone: CPU from Kafka to a task, beside plain Celery; latency; who suffers beside whom; memory.

    What each figure is: docs/benchmarks.md.
    """
    plan = Plan.of(rounds, seconds, flood_seconds, None if group is None else int(group), parts)
    plan = plan.quick() if quick else plan
    with prepared(anyway=anyway) as (variables, console, beside):
        result = _run(plan, lambda: running(LaneSite, variables, console, keep=keep))
        _tell(result, console, beside, plots)
        write(json_file, result.figures(), [*beside, "a quick run's own haste"] if quick else beside, console)


def _run(plan: Plan, new_site: Callable[[], AbstractContextManager[LaneSite]]) -> Result:
    with progress() as say:
        return Run(new_site, plan, say).run()


def _tell(result: Result, console: Console, beside: Sequence[str], plots: Path | None) -> None:
    show(result, console, beside)
    if plots is not None:
        from bench.lanes.plots import draw  # matplotlib takes a second to load, and is wanted here only

        console.print("pictures:", *map(str, draw(result, plots)))
