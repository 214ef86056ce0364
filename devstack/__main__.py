"""`python -m devstack`: the commands."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from devstack import dotenv, run, stack
from devstack.home import here
from devstack.stack import Failure
from devstack.supervisor import ProcfileError

console = Console()
NAMES = [kind.name for kind in stack.CLASSES]


class Progress:
    """A live table of what each service does; plain lines where there is no terminal."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._lock = threading.Lock()
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, service: str, text: str) -> None:
        """Report what a service does now; called by any thread."""
        with self._lock:
            self._lines[service] = text
            if self._live:
                self._live.update(self._table())
            else:
                click.echo(f"{service:14} {text}")

    def _table(self) -> Table:
        table = Table(box=None, show_header=False)
        for service, text in self._lines.items():
            table.add_row(service, text, style=_colour(text))
        return table


def _colour(text: str) -> str:
    if text.startswith(("ready", "stopped", "was not")):
        return "green"
    return "red" if text.startswith(("failed", "killed")) else "yellow"


@click.group()
def main() -> None:
    """The real services of this clone: PostgreSQL, Redis, Kafka, Elasticsearch, S3, Redshift's stand-in."""


@main.command()
def up() -> None:
    """Start what does not run, wait until everything answers, write .env."""
    with Progress() as progress:
        failures = stack.up(here(), progress)
    for failure in failures:
        _explain(failure)
    _warn_of_overrides()
    sys.exit(1 if failures else 0)


def _explain(failure: Failure) -> None:
    click.echo(f"\n{failure.service} did not come up: {failure.reason}", err=True)
    for line in failure.log:
        click.echo(f"    {line}", err=True)
    click.echo(f"  -> {failure.hint}", err=True)


def _warn_of_overrides() -> None:
    """The process environment wins over .env, so a variable left over in the shell leads elsewhere."""
    values = dotenv.read(here().dotenv)
    different = [
        name
        for name in values
        if name != "SSL_CERT_FILE" and os.environ.get(name, values[name]) != values[name]
    ]
    if different:
        click.echo(
            f"Set differently in your environment, which wins over .env: {', '.join(different)}", err=True
        )


@main.command()
def down() -> None:
    """Stop everything and say what data is kept."""
    with Progress() as progress:
        clean = stack.down(here(), progress)
    for service in stack.services(here()):
        if service.data and service.data.exists():
            click.echo(f"kept: {service.data} ({service.name})")
    click.echo("`python -m devstack reset` deletes it.")
    sys.exit(0 if clean else 1)


@main.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> None:
    """Stop everything and delete all data of this clone's services."""
    if not yes:
        click.confirm("Delete all data of this clone's services?", abort=True)
    with Progress() as progress:
        clean = stack.reset(here(), progress)
    sys.exit(0 if clean else 1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Version, port, process, memory and health of each service. Exit 1 unless all are well."""
    states = stack.status(here())
    if as_json:
        click.echo(json.dumps([asdict(state) for state in states], indent=1))
    else:
        table = Table("service", "version", "port", "pid", "memory", "health", box=None)
        for state in states:
            memory = f"{state.rss >> 20} MB" if state.pid else ""
            table.add_row(
                state.service, state.version, str(state.port), str(state.pid or ""), memory, state.health
            )
        console.print(table)
    sys.exit(0 if all(state.health == "ok" for state in states) else 1)


@main.command()
@click.argument("service", type=click.Choice(NAMES), required=False)
@click.option("-n", "--lines", default=40, show_default=True)
@click.option("-f", "--follow", is_flag=True)
def logs(service: str | None, lines: int, follow: bool) -> None:
    """The end of one service's log, or of all."""
    names = [service] if service else NAMES
    files = [str(here().logs / f"{name}.log") for name in names if (here().logs / f"{name}.log").exists()]
    if files:
        options = ["-F"] if follow else []
        sys.exit(subprocess.call(["tail", "-n", str(lines), *options, *files]))


@main.command("run")
@click.argument("names", nargs=-1)
def run_(names: tuple[str, ...]) -> None:
    """Run the Procfile (or the lines of these names) and restart what ends, until Ctrl-C."""
    try:
        sys.exit(run.run(here(), names))
    except (run.AlreadyRunning, ProcfileError) as error:
        raise click.ClickException(str(error)) from error


main(prog_name="python -m devstack")
