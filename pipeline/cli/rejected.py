"""``pipeline rejected``: events set aside."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from pipeline import settings as configuration
from pipeline.control import rejected as control
from pipeline.control.database import ControlDatabase


@click.group()
def rejected() -> None:
    """Events that a sink can never accept: set aside with their reason, never in the way."""


@rejected.command("list")
@click.argument("consumer")
@click.option("--limit", default=50, show_default=True, help="Events to list, at most.")
@click.option("--stale", is_flag=True, help="Also those that a sweep has made irrelevant.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(consumer: str, limit: int, stale: bool, as_json: bool) -> None:
    """The newest events that CONSUMER set aside. Payloads are not shown."""
    settings = configuration.load()
    settings.consumer(consumer)
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    events = control.listed(database, consumer, limit, stale=stale)
    if as_json:
        click.echo(json.dumps([asdict(event) for event in events]))
        return
    table = Table(title=f"Set aside by {consumer}")
    for title in ("partition", "offset", "merchant", "type", "key", "reason"):
        table.add_column(title)
    for event in events:
        reason = f"{event.reason} (stale)" if event.stale else event.reason
        cells = (event.partition, event.offset, event.merchant, event.type, event.key, reason)
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    Console().print(table)
