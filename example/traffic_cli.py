"""The command `traffic`: keeps the example company busy, and shows how busy."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .report import Report
from .schema import urls
from .tables import SOURCES
from .traffic import Busy, Load, run

_KINDS = ("insert", "update", "delete")


@click.command()
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=500,
    show_default=True,
    help="Row changes per second, all databases together.",
)
@click.option(
    "--merchants",
    type=click.IntRange(min=6),
    default=100,
    show_default=True,
    help="Merchants 1 to this number; 1 is the largest.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=30, show_default=True, help="How long."
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="The same seed on the same rows plans the same transactions.",
)
@click.option(
    "--connections", type=click.IntRange(1, 32), default=4, show_default=True, help="Writers side by side."
)
@click.option(
    "--probe",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append to this file a line of JSON for one in 20 transactions: a row to look for, and when COMMIT answered.",
)
def traffic(
    rate: float, merchants: int, seconds: float, seed: int, connections: int, probe: Path | None
) -> None:
    """Write to the example databases as a payment company does: inserts, life cycles, deletes, rollbacks, savepoints.

    Connects to <SOURCE>_WRITER_URL for each database, or to EXAMPLE_WRITER_URL with the database's name put in.
    """
    load = Load(rate, merchants, seconds, seed, connections, probe)
    console, stop = Console(), threading.Event()
    try:
        with Live(console=console, auto_refresh=False) as live:
            report = run(
                writer_urls(os.environ), load, lambda now: live.update(_table(now, load), refresh=True), stop
            )
            live.update(_table(report, load), refresh=True)
    except (Busy, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if report.missed:
        raise click.ClickException(
            f"{report.missed} rows were gone: somebody else deletes from these databases."
        )


def writer_urls(environment: Mapping[str, str]) -> dict[str, str]:
    """Each source's connection string for the application's role. Raises click.UsageError naming what is not set."""
    shared = environment.get("EXAMPLE_WRITER_URL")
    known = urls(shared) if shared else {}
    own = {source: environment.get(f"{source.upper()}_WRITER_URL") for source in SOURCES}
    found = known | {source: url for source, url in own.items() if url}
    missing = [f"{source.upper()}_WRITER_URL" for source in SOURCES if source not in found]
    if missing:
        raise click.UsageError(
            f"Set EXAMPLE_WRITER_URL, or {', '.join(missing)} (`make up` writes them to .env)."
        )
    return found


def _table(report: Report, load: Load) -> Table:
    table = Table(
        title=f"Traffic, {report.seconds:.0f} of {load.seconds:.0f} s at {load.rate:,.0f} row changes/s"
    )
    table.add_column("database")
    for title in (*(f"{kind}s" for kind in _KINDS), "rows"):
        table.add_column(title, justify="right")
    for source in SOURCES:
        counts = [_count(report, source, kind) for kind in _KINDS]
        table.add_row(source, *(f"{count:,}" for count in (*counts, sum(counts))))
    table.caption = (
        f"{report.rate:,.0f} rows/s in {report.commit_rate:,.0f} commits/s · "
        f"{report.commits:,} commits, {report.rollbacks:,} rollbacks, {report.retries:,} retries"
    )
    return table


def _count(report: Report, source: str, kind: str) -> int:
    return sum(count for (where, _, what), count in report.events.items() if (where, what) == (source, kind))


if __name__ == "__main__":
    traffic()
