"""``pipeline merchants``: where merchants live, and how one moves."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline import settings as configuration
from pipeline.capture import away
from pipeline.capture.moving import copying, fitness
from pipeline.capture.moving.ends import Ends, opened
from pipeline.capture.moving.moves import Move, Orders, Voice
from pipeline.capture.moving.revoking import revoke as take_back
from pipeline.capture.session import session
from pipeline.control import placements, tables
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.control.placements import Placement
from pipeline.errors import PermanentError, PipelineError
from pipeline.settings import Settings

_LOOK_EVERY = 0.2


@click.group()
def merchants() -> None:
    """Where merchants live, and how one moves from one source to another."""


@merchants.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(as_json: bool) -> None:
    """Merchants that have moved or are moving, and who is away where."""
    settings, database = _start()
    found, absent = placements.listed(database), _absent(settings)
    if as_json:
        click.echo(json.dumps({"placements": [_plain(each) for each in found], "away": absent}))
        return
    table = Table(title="Moves")
    for title in ("merchant", "from", "to", "step", "since", "reason"):
        table.add_column(title)
    for each in found:
        since = f"{each.changed_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(each.merchant, each.source, each.target, each.step, since, each.reason)
    Console().print(table)
    for source, names in absent.items():
        shown = "does not answer" if names is None else ", ".join(names) or "nobody"
        click.echo(f"away in {source}: {shown}")


def _absent(settings: Settings) -> Mapping[str, list[str] | None]:
    found: dict[str, list[str] | None] = {}
    for source in settings.configuration.sources:
        try:
            with session(settings.source_url(source)) as connection:
                found[source] = away.merchants(connection)
        except PipelineError:
            found[source] = None
    return found


def _plain(placement: Placement) -> dict[str, object]:
    return {
        "merchant": placement.merchant,
        "source": placement.source,
        "target": placement.target,
        "step": placement.step,
        "reason": placement.reason,
        "started_at": placement.started_at.isoformat(),
        "finished_at": placement.finished_at.isoformat() if placement.finished_at else None,
        "away": sorted(placement.away),
    }


@merchants.command()
@click.argument("merchant")
@click.option("--from", "source", required=True, help="The source the merchant lives in.")
@click.option("--to", "target", required=True, help="The source it is to live in.")
@click.option("--frozen", is_flag=True, help="The application does not write this merchant any more.")
@click.option("--copied", is_flag=True, help="A tool of your own has copied the rows: count them only.")
@click.option("--dry-run", is_flag=True, help="Say what stands against it, or what would be copied.")
@click.option(
    "--revoke", is_flag=True, help="Take a move back; possible until it says that nothing leads back."
)
@click.option("--reason", required=True, help="Why; it is kept in the record of actions.")
def move(
    merchant: str,
    source: str,
    target: str,
    frozen: bool,
    copied: bool,
    dry_run: bool,
    revoke: bool,
    reason: str,
) -> None:
    """Move MERCHANT from one source database to another of the same tables; search and warehouse follow.

    It goes step by step and shows what it waits for. Ended in any way, the same command goes on where it was. Its writes
    must be frozen from when it asks until it says that the merchant is at home in the new source.
    """
    settings, database = _start()
    captured = tables.load(database)
    urls = [(name, _url(settings, name)) for name in (source, target)]
    orders = Orders(getpass.getuser(), reason, copied, lambda: frozen or _asked(merchant, source))
    with opened(urls[0], urls[1], captured) as ends:
        if dry_run:
            _preview(database, ends, merchant, copied=copied, revoke=revoke)
            return
        with _alone(settings, merchant), _voice() as voice:
            if revoke:
                take_back(database, ends, merchant, actor=orders.actor, reason=reason)
                click.echo(f"{merchant} lives in {source} as before; a snapshot of it there is requested")
                return
            left = Move(database, ends, merchant, orders, voice).run()
    click.echo(f"what is left in {source} shows nowhere; delete it when you like, nobody tells of it:")
    click.echo("\n".join(f"  {statement};" for statement in left))


def _start() -> tuple[Settings, ControlDatabase]:
    settings = configuration.load()
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    require_migrated(database)
    return settings, database


def _url(settings: Settings, source: str) -> str:
    settings.source(source)
    return settings.source_url(source)


def _asked(merchant: str, source: str) -> bool:
    return click.confirm(f"Does the application write nothing of {merchant} in {source} any more?")


@contextmanager
def _alone(settings: Settings, merchant: str) -> Iterator[None]:
    lock = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    with placements.alone(lock, merchant) as held:
        if not held:
            raise PermanentError(f"somebody else is moving merchant {merchant} now")
        yield


def _preview(database: ControlDatabase, ends: Ends, merchant: str, *, copied: bool, revoke: bool) -> None:
    placement = placements.load(database, merchant)
    if placement is not None and placement.finished_at is None:
        back = "can be revoked" if placement.revocable else "cannot be revoked any more"
        click.echo(
            f"{merchant} is moving from {placement.source} to {placement.target}, done: {placement.step}; it {back}"
        )
        return
    if revoke:
        raise PermanentError(f"merchant {merchant} is not moving")
    fitness.require(database, ends, merchant, copied=copied)
    found = copying.contents(ends.source.connection, ends.source.tables.values(), merchant)
    click.echo(f"nothing stands against it; of {merchant} {ends.source.name} has:")
    for type_, rows in copying.counts(found).items():
        click.echo(f"  {rows:,} rows of {type_} in {ends.source.tables[type_].name}")


@contextmanager
def _voice() -> Iterator[Voice]:
    """Finished steps stay on stdout; what is waited for, and how far the copy is, are one line on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("begins", total=None)
        said = [""]

        def tell(text: str) -> None:
            click.echo(text)

        def wait(what: str) -> None:
            progress.update(bar, description=f"waits for {what}", total=None)
            if what != said[0] and not progress.console.is_terminal:
                click.echo(f"waits for {what}", err=True)
            said[0] = what
            time.sleep(_LOOK_EVERY)

        def advance(table: str, rows: int, total: int) -> None:
            progress.update(
                bar, description=f"{table}: {rows:,} of {total:,} rows", completed=rows, total=total
            )

        yield Voice(tell, wait, advance)
