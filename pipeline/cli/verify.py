"""``pipeline verify``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from pipeline import settings as configuration
from pipeline.control.database import ControlDatabase
from pipeline.search.client import connect
from pipeline.verify.compare import Comparison, Finding
from pipeline.verify.run import Report, Verification

_FINDINGS: tuple[Finding, ...] = ("lost", "phantom", "different", "rejected")


@click.command()
@click.option("--source", help="Only this source's tables.")
@click.option("--type", "type_", help="Only this document type.")
@click.option("--merchant", help="Only this merchant's rows.")
@click.option(
    "--timeout", default=60.0, show_default=True, help="Seconds for what the snapshot saw to arrive."
)
@click.option("--keys", default=20, show_default=True, help="Keys to name per finding.")
@click.option("--json", "as_json", is_flag=True, help="For programs; names every key.")
def verify(
    source: str | None, type_: str | None, merchant: str | None, timeout: float, keys: int, as_json: bool
) -> None:
    """Compare every captured column of every row in both sinks with the sources, beside live traffic.

    Exits with 0 when all is equal, with 1 when something is lost, phantom, different or rejected, when rows changed
    without events, when merchants were left out whose lanes are paused or parked, or when what the snapshot saw does not
    arrive in time.
    """
    settings = configuration.load()
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else 120)
    with (
        connect(settings.environment.elasticsearch_url.get_secret_value()) as search,
        console.status("verifying") as status,
    ):
        report = Verification(settings, database, search, timeout, status.update).run(source, type_, merchant)
    if as_json:
        click.echo(json.dumps(_as_json(report)))
    else:
        _show(console, report, keys)
    sys.exit(0 if report.clean else 1)


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "clean": report.clean,
        "notices": list(report.notices),
        "unreadable": report.unreadable,
        "moving": list(report.moving),
        "held": list(report.held),
        "comparisons": [
            {
                "type": type_,
                "sink": sink,
                "rows": one.rows,
                "sink_rows": one.sink_rows,
                "changed": one.changed,
                "differences": [[each.finding, each.merchant, each.key] for each in one.differences],
            }
            for (type_, sink), one in report.comparisons.items()
        ],
    }


def _show(console: Console, report: Report, keys: int) -> None:
    console.print(_table(report))
    for (type_, sink), one in report.comparisons.items():
        for finding in _FINDINGS:
            _name_keys(console, f"{finding} in {sink}, {type_}", one, finding, keys)
    for notice in report.notices:
        console.print(f"[red]{notice}")
    if report.moving:
        console.print(f"left out, on their way between sources: {', '.join(report.moving)}", highlight=False)
    if report.held:
        held = f"{', '.join(report.held[:keys])}{' …' if len(report.held) > keys else ''}"
        console.print(f"[red]left out, their lanes are paused or parked:[/] {held}", highlight=False)
    if report.unreadable:
        console.print(
            f"{report.unreadable} set-aside records cannot be read as events: pipeline rejected list"
        )


def _table(report: Report) -> Table:
    table = Table(title="Source = sink, every captured column of every row")
    table.add_column("type")
    table.add_column("sink")
    for title in ("merchants", "rows", "in the sink", "changed since", *_FINDINGS):
        table.add_column(title, justify="right")
    for (type_, sink), one in report.comparisons.items():
        numbers = [one.merchants, one.rows, one.sink_rows, one.changed]
        found = [one.count(finding) for finding in _FINDINGS]
        cells = [f"{number:,}" for number in numbers] + [
            f"[red]{count:,}" if count else "0" for count in found
        ]
        table.add_row(type_, sink, *cells, style="" if any(found) else "green")
    return table


def _name_keys(console: Console, title: str, one: Comparison, finding: Finding, keys: int) -> None:
    found = [
        f"merchant {each.merchant} key {each.key}" for each in one.differences if each.finding == finding
    ]
    if found:
        more = f" and {len(found) - keys:,} more" if len(found) > keys else ""
        console.print(f"[red]{title}:[/] {'; '.join(found[:keys])}{more}", highlight=False)
