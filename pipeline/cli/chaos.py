"""``pipeline chaos``."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import SystemRandom

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline import settings as configuration
from pipeline.chaos import stores
from pipeline.chaos.faults import PROCESSES, Fault
from pipeline.chaos.operators import PEOPLE
from pipeline.chaos.plot import draw
from pipeline.chaos.run import Plan, Run, Say
from pipeline.chaos.site import OWN, Site, marked
from pipeline.chaos.stores import Servers
from pipeline.chaos.verdict import Verdict
from pipeline.errors import PermanentError


@click.command()
@click.option("--seed", type=int, help="Repeats the schedule of a run.  [default: drawn, and printed]")
@click.option(
    "--minutes", type=click.FloatRange(min=0.5), default=2.0, show_default=True, help="Of traffic and faults."
)
@click.option(
    "--merchants", type=click.IntRange(min=1), default=2000, show_default=True, help="By Zipf's law."
)
@click.option(
    "--rate", type=click.FloatRange(min=1), default=300.0, show_default=True, help="Records a second."
)
@click.option("--faults", metavar="FAULT,…", help="Only these.  [default: all that are possible here]")
@click.option("--own-redis", is_flag=True, help="Nobody else uses this Redis: FLUSHALL, and fill it.")
@click.option("--redis-restart", metavar="CMD", help="A shell command that kills Redis and starts it again.")
@click.option("--kafka-restart", metavar="CMD", help="A shell command that kills Kafka and starts it again.")
@click.option(
    "--own-servers",
    is_flag=True,
    help="On a Redis and a Kafka started for it, killed at will (in a checkout).",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the verdict here."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture here.")
@click.option("--keep", is_flag=True, help="Leave logs, topics, keys and the sink for a look.")
def chaos(
    seed: int | None,
    minutes: float,
    merchants: int,
    rate: float,
    faults: str | None,
    own_redis: bool,
    redis_restart: str | None,
    kafka_restart: str | None,
    own_servers: bool,
    json_file: Path | None,
    plot: Path | None,
    keep: bool,
) -> None:
    """Strike a consumer whose sink refuses gaps and counts everything, and judge whether anything was lost.

    It works on a deployment of its own, on the servers of this one, whose name must be marked for it: "chaos", or
    "chaos" before or behind a "_". With --own-servers only the control database is this one's.

    Exits with 1 when something was lost or out of order, or did not come to rest.
    """
    console = Console(width=None if sys.stdout.isatty() else 120)
    seed = SystemRandom().getrandbits(32) if seed is None else seed
    console.print(f"seed {seed}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # takes the deployment away, as Ctrl-C does
    directory = Path(tempfile.mkdtemp(prefix="pipeline-chaos-"))
    names = [f"m{number}" for number in range(merchants)]
    with ExitStack() as stack:
        settings, variables = configuration.load(), dict[str, str]()
        if own_servers:
            ground = OWN
            servers, variables = stack.enter_context(_own_servers(directory / "servers"))
        else:
            ground = marked(settings)
            servers = Servers(own_redis, _command(redis_restart), _command(kafka_restart))
        plan = Plan(
            seed, minutes * 60, names, rate, _chosen(faults, {**PROCESSES, **PEOPLE, **stores.of(servers)})
        )
        # The sink takes its time for each turn: whoever has many merchants gives it more of them at once.
        group = max(5, merchants // 2000)
        run = f"{int(time.time()):x}"[-8:]
        site = Site(ground, run, directory / "site", variables=variables, group=group)
        if not keep:
            stack.callback(site.destroy)
        site.create(names)
        with _progress() as say:
            verdict = Run(site, plan, say).judge()
    show(verdict, console)
    if json_file is not None:
        json_file.write_text(json.dumps(verdict.figures(), indent=1) + "\n")
    if plot is not None:
        draw(verdict, plot)
    if verdict.ok and not keep:
        shutil.rmtree(directory)
    else:
        console.print(f"logs: {directory}")
    sys.exit(0 if verdict.ok else 1)


def _chosen(wanted: str | None, offered: Mapping[str, Fault]) -> Mapping[str, Fault]:
    names = list(offered) if wanted is None else [name for name in wanted.split(",") if name]
    if unknown := sorted(set(names) - offered.keys()):
        raise click.BadParameter(
            f"{', '.join(unknown)}: there are {', '.join(offered)} here", param_hint="--faults"
        )
    return {name: offered[name] for name in names}


def _command(line: str | None) -> Callable[[], None] | None:
    if line is None:
        return None

    def restart() -> None:
        subprocess.run(line, shell=True, check=False, stdout=subprocess.DEVNULL)

    return restart


@contextmanager
def _own_servers(directory: Path) -> Iterator[tuple[Servers, dict[str, str]]]:
    try:
        from devstack.private import own_servers
    except ModuleNotFoundError as error:
        raise PermanentError("--own-servers is there in a checkout of the repository only") from error
    with own_servers(directory) as own:
        yield Servers(True, own.restart_redis, own.restart_kafka), dict(own.variables)


@contextmanager
def _progress() -> Iterator[Say]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("starting", total=None)
        yield lambda what, done, of: shown.update(task, description=what, completed=done, total=of)


def show(verdict: Verdict, console: Console) -> None:
    """Print what was found."""
    table = Table(title="Faults", title_justify="left", box=None, header_style="bold")
    for column in ("fault", "struck", "recovered, s (median)", "at most"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for fault, count in sorted(verdict.faults.items()):
        times = sorted(verdict.recovery.get(fault, ()))
        shown = (f"{times[len(times) // 2]:.1f}", f"{times[-1]:.1f}") if times else ("-", "-")
        table.add_row(fault, str(count), *shown)
    console.print(table)
    console.print(
        f"{verdict.published:,} records of {verdict.merchants:,} merchants in {verdict.seconds:.0f} s;"
        f" at rest {verdict.rest_after:.0f} s after the last"
    )
    if verdict.requests:
        done = ", ".join(f"{verb} {count}" for verb, count in verdict.requests.items())
        refused = ", ".join(f"{verb} {count}" for verb, count in verdict.refused.items())
        console.print(f"asked of lanes: {done}" + (f"; refused: {refused}" if refused else ""))
    for finding in verdict.findings:
        console.print(f"[red]{finding}")
    console.print(
        f"lost {verdict.lost}, out of order {verdict.out_of_order}, duplicates {verdict.duplicates},"
        f" older tokens {verdict.token_regressions}, skipped {verdict.skipped}: "
        + ("[green]well" if verdict.ok else "[red]broken")
        + f" (seed {verdict.seed})"
    )
