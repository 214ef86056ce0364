"""``pipeline bench``: measure, print, write figures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from bench.deployment import REPO, Deployment
from bench.e2e import Plan, Run
from bench.guard import alone
from bench.report import show
from devstack import run as devstack_run
from devstack.home import here
from pipeline.errors import ConfigurationError

_LOCK = REPO / ".devstack" / "bench.lock"


@click.group()
def bench() -> None:
    """Measure the pipeline on this machine's services; from a checkout of the repository."""


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # takes the deployment away, as Ctrl-C does
    variables = _environment()
    console = Console(width=None if sys.stdout.isatty() else 140)
    with alone(_LOCK, variables["REDIS_URL"], anyway=anyway) as beside:
        with _deployment(variables, console, keep=keep) as deployment, _progress() as say:
            result = Run(deployment, Plan(rows, rounds, seconds, rate), say).run()
        show(result, console, beside)
    if json_file is not None and beside:
        console.print(f"{json_file} is not written.")
    elif json_file is not None:
        json_file.write_text(json.dumps(result.figures(), indent=2) + "\n")


def _environment() -> dict[str, str]:
    """The services' addresses; into this process's environment too, because clients look there."""
    variables = devstack_run.environment(here())
    needed = ("DEVSTACK_POSTGRES_URL", "EXAMPLE_WRITER_URL", "CONTROL_DATABASE_URL", "REDIS_URL")
    missing = tuple(
        f"environment: {name} is required; run `make up`" for name in needed if name not in variables
    )
    if missing:
        raise ConfigurationError(missing)
    os.environ.update(variables)
    return variables


@contextmanager
def _deployment(variables: dict[str, str], console: Console, *, keep: bool) -> Iterator[Deployment]:
    directory = Path(tempfile.mkdtemp(prefix="pipeline-bench-"))
    deployment = Deployment(directory, variables)
    done = False
    try:
        with console.status("making the deployment bench_e2e"):
            deployment.create()
        yield deployment
        done = True
    finally:
        deployment.stop()
        if not keep:
            with console.status("taking the deployment away"):
                deployment.destroy()
        if done and not keep:
            shutil.rmtree(directory)
        else:
            console.print(f"logs: {directory}/logs")


class _Say:
    """Shows what happens now, in one line."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None)

    def __call__(self, what: str, done: int, of: int) -> None:
        self._progress.update(self._task, description=what, completed=done, total=of or None)


@contextmanager
def _progress() -> Iterator[_Say]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Say(progress)
