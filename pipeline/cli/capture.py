"""``pipeline capture``: put capture into a source, run its relay, take snapshots."""

from __future__ import annotations

import getpass
import json
import sys
from dataclasses import asdict

import click

from pipeline import settings as configuration
from pipeline.capture import confirm as confirming
from pipeline.capture import disabling
from pipeline.capture import install as installing
from pipeline.capture import lint as linting
from pipeline.capture import uninstall as uninstalling
from pipeline.capture.progress import last_progress
from pipeline.capture.session import session
from pipeline.cli.relaying import relay
from pipeline.cli.snapshots import pause, resume, snapshot
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.errors import PipelineError
from pipeline.settings import Settings


@click.group()
def capture() -> None:
    """Carry every committed change of a source database into Kafka."""


@capture.command()
@click.argument("source")
@click.option("--dry-run", is_flag=True, help="Print the SQL, roll everything back.")
def install(source: str, dry_run: bool) -> None:
    """Put queue and triggers into SOURCE. Repeat it after every change of its tables or of pipeline.toml.

    Each captured table is locked for milliseconds. A dry run does the same and rolls it back.
    """
    settings, database = _start()
    done = installing.install(
        database,
        source,
        settings.source(source),
        settings.source_url(source),
        actor=getpass.getuser(),
        dry_run=dry_run,
    )
    _tell(source, done, dry_run)


def _tell(source: str, done: installing.Installed, dry_run: bool) -> None:
    if dry_run:
        click.echo(";\n".join(done.statements) + ";")
        return
    click.echo(f"{source}: {len(done.tables)} tables captured, generation {done.generation}")
    for finding in done.findings:
        if finding.level != "note":
            click.echo(str(finding), err=True)
    if done.advice:
        click.echo("PgQ's functions run with their caller's search_path; as their owner, run:", err=True)
        click.echo("\n".join(f"  {statement};" for statement in done.advice), err=True)


@capture.command()
@click.argument("source")
@click.option("--dry-run", is_flag=True, help="Print the SQL, roll everything back.")
@click.option("--reason", default="", help="Why; it is kept in the record of actions.")
def uninstall(source: str, dry_run: bool, reason: str) -> None:
    """Take triggers, queue and schema cdc out of SOURCE; events not yet published are lost with them."""
    settings, database = _start()
    url = settings.source_url(source)
    statements = uninstalling.uninstall(
        database, source, url, actor=getpass.getuser(), reason=reason, dry_run=dry_run
    )
    click.echo(";\n".join(statements) + ";" if dry_run else f"{source}: nothing of ours is left")


@capture.command()
@click.argument("source")
@click.option("--dry-run", is_flag=True, help="Say what stands against it and change nothing.")
@click.option("--reason", default="", help="Why; it is kept in the record of actions.")
def confirm(source: str, dry_run: bool, reason: str) -> None:
    """Accept the database that SOURCE's URL leads to as SOURCE from now on: after a restore, a clone, a new Kafka.

    Its relay must be stopped. Its generation goes above all others, and a snapshot is requested. The former database
    must never publish again.
    """
    settings, database = _start()
    bootstrap, topic = (
        settings.environment.kafka_bootstrap_servers,
        settings.configuration.deployment.progress.topic,
    )
    done = confirming.confirm(
        database,
        source,
        settings.source(source),
        settings.source_url(source),
        last_progress(bootstrap, topic, source),
        actor=getpass.getuser(),
        reason=reason,
        dry_run=dry_run,
    )
    if done is None:
        click.echo(f"{source}: nothing stands against this database")
    elif done.generation is None:
        click.echo(f"{source}: {done.objection}; confirmed, it would get a new generation and a snapshot")
    else:
        click.echo(f"{source}: confirmed at generation {done.generation}, snapshot requested")


@capture.command()
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def lint(source: str, as_json: bool) -> None:
    """Say what would make capture of SOURCE lose or re-order changes, or break writes; with the SQL that mends it.

    Exits with 1 when something is refused. The relay runs the same once a day and logs it.
    """
    settings = configuration.load()
    tables = sorted(settings.source(source).tables)
    with session(settings.source_url(source)) as connection:
        findings = linting.lint(connection, tables)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        click.echo("\n".join(map(str, findings)) or f"{source}: nothing to say about {len(tables)} tables")
    sys.exit(1 if any(finding.level == "refuse" for finding in findings) else 0)


@capture.command()
@click.argument("source")
@click.option("--reason", required=True, help="Why; status and verify show it.")
def disable(source: str, reason: str) -> None:
    """Stop capturing SOURCE at once, for an emergency: the same as SELECT cdc.disable('reason') in the database.

    It waits for no lock on any table. What is written from now on is not published: afterwards run
    `pipeline capture enable` and take a snapshot.
    """
    settings = configuration.load()
    since = disabling.disable(settings.source_url(source), source, reason)
    click.echo(f"{source}: {since}")
    try:
        database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
        disabling.recorded(database, source, getpass.getuser(), reason)
    except PipelineError as error:
        click.echo(f"not written to the record of actions: {error}", err=True)


@capture.command()
@click.argument("source")
@click.option("--dry-run", is_flag=True, help="Print the SQL, roll everything back.")
def enable(source: str, dry_run: bool) -> None:
    """Capture SOURCE again after `disable`. Every table then needs a snapshot, and status says so until it is done."""
    settings, database = _start()
    done = installing.enable(
        database,
        source,
        settings.source(source),
        settings.source_url(source),
        actor=getpass.getuser(),
        dry_run=dry_run,
    )
    _tell(source, done, dry_run)
    if not dry_run:
        click.echo(f"run: pipeline capture snapshot {source}")


@capture.command()
@click.argument("source")
def run(source: str) -> None:
    """Relay SOURCE's changes to Kafka until told to stop. A second one stands by."""
    relay(source)


capture.add_command(snapshot)
capture.add_command(pause)
capture.add_command(resume)


def _start() -> tuple[Settings, ControlDatabase]:
    settings = configuration.load()
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    require_migrated(database)
    return settings, database
