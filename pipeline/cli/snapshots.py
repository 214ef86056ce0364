"""``pipeline capture snapshot``, ``pause`` and ``resume``: ask for a source's rows again, and hold that back."""

from __future__ import annotations

import getpass
import re
import sys
import time

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as ProgressTask
from rich.text import Text

from pipeline import settings as configuration
from pipeline.control import actions, snapshots, tables
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.errors import PermanentError

_LOOK_EVERY = 0.25
_RECENT = 30.0  # seconds by which the pace is judged
_MERCHANT = re.compile(r"_?[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_INTERRUPTED = 130  # as the shell has it


@click.command()
@click.argument("source")
@click.option("--table", help='Only this one, such as "public.orders".')
@click.option("--merchant", help="Only this merchant's rows.")
@click.option("--wait/--no-wait", default=True, help="Show the progress until it is done.")
def snapshot(source: str, table: str | None, merchant: str | None, wait: bool) -> None:
    """Publish every row of SOURCE's captured tables again, beside live traffic; its relay does the work.

    What the sinks have of them and the source no longer does is swept away afterwards. Exits with 1 when it fails.
    Interrupting this command leaves the snapshot in work.
    """
    database = _database(source)
    _require_captured(database, source, table)
    if merchant is not None and not _MERCHANT.fullmatch(merchant):
        raise click.BadParameter(f'"{merchant}" is no merchant id', param_hint="--merchant")
    request = snapshots.request(database, source, table=table, merchant=merchant)
    if not wait:
        click.echo(f"{source}: snapshot {request} requested")
        return
    try:
        done = _show_progress(database, source, request)
    except KeyboardInterrupt:
        click.echo(f"{source}: snapshot {request} goes on; pipeline status shows how far it is", err=True)
        sys.exit(_INTERRUPTED)
    if done.status == "failed":
        raise PermanentError(f"snapshot of {source} failed: {done.detail}")
    click.echo(f"{source}: {done.rows_published:,} rows published")


@click.command()
@click.argument("source")
@click.option("--reason", default="", help="Why; it is kept in the record of actions.")
def pause(source: str, reason: str) -> None:
    """Hold back the snapshots of SOURCE, those in work and those requested meanwhile; changes go on."""
    _hold(source, reason, paused=True)


@click.command()
@click.argument("source")
@click.option("--reason", default="", help="Why; it is kept in the record of actions.")
def resume(source: str, reason: str) -> None:
    """Let the paused snapshots of SOURCE go on from where they are."""
    _hold(source, reason, paused=False)


def _hold(source: str, reason: str, *, paused: bool) -> None:
    database = _database(source)
    held = snapshots.pause(database, source, paused=paused)
    if not held:
        raise PermanentError(f"no snapshot of {source} is open")
    verb = "pause" if paused else "resume"
    actions.record(
        database,
        actor=getpass.getuser(),
        verb=f"capture {verb}",
        subject=source,
        reason=reason,
        details={"snapshots": held},
    )
    click.echo(f"{source}: snapshot {', '.join(map(str, held))} {'paused' if paused else 'goes on'}")


def _database(source: str) -> ControlDatabase:
    settings = configuration.load()
    settings.source(source)
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    require_migrated(database)
    return database


def _require_captured(database: ControlDatabase, source: str, table: str | None) -> None:
    captured = {one.name for one in tables.load(database) if one.source == source}
    if not captured:
        raise PermanentError(
            f"capture is not installed in {source}", hint=f"run: pipeline capture install {source}"
        )
    if table is not None and table not in captured:
        raise PermanentError(
            f"{source} captures no table {table}", hint=f"it has: {', '.join(sorted(captured))}"
        )


class _Speed(ProgressColumn):
    def render(self, task: ProgressTask) -> Text:
        return Text(f"{task.speed or 0:,.0f} rows/s")


def _show_progress(database: ControlDatabase, source: str, request: int) -> snapshots.Snapshot:
    """Follow a snapshot until it is over: rows over all its tables, and what it is at or waits for."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of about {task.total:,.0f} rows"),
        _Speed(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, speed_estimate_period=_RECENT) as progress:
        bar = progress.add_task("waits for the relay", total=0)
        while True:
            state = snapshots.load(database, request)
            if state is None:
                raise PermanentError(f"snapshot {request} is gone from the control database")
            if state.finished:
                return state
            total = max(state.rows_estimated, state.rows_published)
            waits = (
                state.detail or "begins" if state.status == "running" else _turn(database, source, request)
            )
            progress.update(bar, description=waits, completed=state.rows_published, total=total)
            time.sleep(_LOOK_EVERY)


def _turn(database: ControlDatabase, source: str, request: int) -> str:
    """Why it has not begun."""
    first = snapshots.open_requests(database, source)[:1]
    before = [one for one in first if one.id != request]
    if before:
        return f"waits for snapshot {before[0].id}" + (", which is paused" if before[0].paused else "")
    return "paused" if first and first[0].paused else "waits for the relay"
