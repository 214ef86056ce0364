"""``pipeline warehouse``: look at the warehouse's tables and loads, and load now."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict

import click
import msgspec
from rich.console import Console
from rich.table import Table

from pipeline import settings
from pipeline.control import actions, parts, tables
from pipeline.control.database import ControlDatabase
from pipeline.storage import Bucket
from pipeline.warehouse.loader import Loader, Report
from pipeline.warehouse.tables import check_tables


@click.group()
def warehouse() -> None:
    """The warehouse: what waits, what is loaded, what failed."""


@warehouse.command()
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@click.option("--reason", default="", help="Why failed loads are tried again; kept in the audit.")
def load(types: tuple[str, ...], reason: str) -> None:
    """Load what waits now, and try failed loads again: of these TYPEs, or of all."""
    known = settings.load()
    with closing(ControlDatabase(known.environment.control_database_url.get_secret_value())) as database:
        actions.record(
            database, actor="cli", verb="warehouse load", subject=" ".join(types) or "*", reason=reason
        )
    reports = Loader(known, Bucket(known.environment.s3_bucket)).load_now(types)
    _show_reports(reports)
    sys.exit(any(report.status in ("failed", "unavailable") for report in reports))


def _show_reports(reports: list[Report]) -> None:
    table = Table("type", "status", "batches", "applied", "stale", "error")
    for report in reports:
        counts = map(str, (report.batches, report.applied, report.stale))
        table.add_row(report.type, report.status, *counts, report.error)
    Console().print(table if reports else "nothing waits")


@warehouse.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def loads(as_json: bool) -> None:
    """What waits to be loaded, per type, and loads that failed."""
    known = settings.load()
    with closing(ControlDatabase(known.environment.control_database_url.get_secret_value())) as database:
        states = parts.load_states(database)
    if as_json:
        click.echo(msgspec.json.encode([asdict(state) for state in states]))
    else:
        _show_states(states)
    sys.exit(any(state.status == "failed" for state in states))


def _show_states(states: list[parts.LoadState]) -> None:
    table = Table("type", "parts", "rows", "bytes", "oldest s", "load", "attempts", "error")
    for state in states:
        counts = map(str, (state.waiting_parts, state.waiting_rows, state.waiting_bytes))
        oldest = f"{state.oldest_seconds:.0f}"
        table.add_row(state.type, *counts, oldest, state.status or "", str(state.attempts), state.error)
    Console().print(table if states else "everything is loaded")


@warehouse.command(name="tables")
def tables_() -> None:
    """Compare Redshift's tables with what is captured; exit 1 when something is missing or different."""
    known = settings.load()
    with closing(ControlDatabase(known.environment.control_database_url.get_secret_value())) as database:
        captured = tables.load(database)
    problems = check_tables(known, captured)
    for problem in problems:
        click.echo(problem)
    if not problems:
        click.echo(f"{len({table.type for table in captured})} types, all as they must be")
    sys.exit(bool(problems))
