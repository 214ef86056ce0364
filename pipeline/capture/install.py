"""Put capture into a source database, or bring an earlier install up to date: one transaction, repeatable at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from pipeline import settings
from pipeline.capture import catalog, disabling, installed, pgq, schema, triggers
from pipeline.capture.identity import SCHEMA_VERSION, Identity, next_identity, schema_version
from pipeline.capture.lint import Finding, lint
from pipeline.capture.marks import take_mark
from pipeline.capture.queue import queue_names
from pipeline.capture.script import DryRun, Script
from pipeline.capture.session import Connection, session
from pipeline.control import actions, sources, tables
from pipeline.control.database import ControlDatabase
from pipeline.domain.table import Table
from pipeline.errors import ConfigurationError, PermanentError, TransientError


@dataclass(frozen=True, slots=True)
class Installed:
    """What an install did: its SQL, the tables, the source's generation.

    ``advice`` is SQL for the owner of PgQ's functions, ``findings`` what lint says to that (nothing it refuses).
    """

    statements: Sequence[str]
    tables: Sequence[Table]
    generation: int
    advice: Sequence[str]
    findings: Sequence[Finding]


def install(
    database: ControlDatabase,
    name: str,
    source: settings.Source,
    url: str,
    *,
    actor: str,
    dry_run: bool = False,
) -> Installed:
    """Capture the configured tables of source `name`; ConfigurationError lists what stands against it.

    A dry run does all of it in a transaction that is rolled back, so it also proves that the rights suffice.
    The generation is kept unless the queue had to be made anew for a source known before: then ev_ids restart, and
    the generation goes above every one in the control database. That one is written first: a generation that was
    never used does no harm, one used twice would.

    A source in which capture was disabled stays so: only `enable` ends that.
    """
    with session(url) as connection:
        since = disabling.read(connection)
        if since is not None:
            raise PermanentError(
                f"source {name}: {since}", hint=f"to end this, run: pipeline capture enable {name}"
            )
        done = _install(connection, database, name, source, dry_run, since)
    if not dry_run:
        details = {"generation": done.generation, "tables": [table.name for table in done.tables]}
        actions.record(database, actor=actor, verb="capture install", subject=name, details=details)
    return done


def enable(
    database: ControlDatabase,
    name: str,
    source: settings.Source,
    url: str,
    *,
    actor: str,
    dry_run: bool = False,
) -> Installed:
    """Capture again after `cdc.disable`, and note for every table that it needs a snapshot; installs at the same time.

    Writers are waited for before the triggers work again. So whoever wrote without leaving an event has ended by then,
    and a snapshot begun afterwards sees all of it.
    """
    with session(url) as connection:
        since = disabling.read(connection)
        if since is None:
            raise PermanentError(f"source {name}: capture is not disabled")
        done = _install(connection, database, name, source, dry_run, since)
    if not dry_run:
        actions.record(database, actor=actor, verb="capture enable", subject=name, reason=str(since))
    return done


def _install(
    connection: Connection,
    database: ControlDatabase,
    name: str,
    source: settings.Source,
    dry_run: bool,
    since: disabling.Disabled | None,
) -> Installed:
    _refuse_newer(connection, name)
    found = catalog.read(connection, name, source)
    identity = next_identity(connection, database, name)
    if not dry_run:
        sources.store(database, sources.Source(name, identity.uuid, identity.generation))
    script = Script(connection)
    try:
        fresh, findings = _run(script, identity, source, found, dry_run, since)
    except TransientError as error:
        raise TransientError(f"source {name}: {error.what}", hint=error.hint) from error
    if not dry_run:
        if fresh:
            take_mark(connection)
        tables.store(database, name, found)
    return Installed(script.statements, found, identity.generation, script.advice, findings)


def _refuse_newer(connection: Connection, name: str) -> None:
    version = schema_version(connection)
    if version is not None and version > SCHEMA_VERSION:
        raise PermanentError(
            f"source {name}: capture was installed by a newer release (schema {version}, this one knows {SCHEMA_VERSION})",
            hint="install with that release",
        )


def _run(
    script: Script,
    identity: Identity,
    source: settings.Source,
    found: Sequence[Table],
    dry_run: bool,
    since: disabling.Disabled | None,
) -> tuple[bool, list[Finding]]:
    """Everything in one transaction; True when the queue was made anew, and what lint finds."""
    connection = script.connection
    fresh, findings = queue_names(connection) is None, list[Finding]()
    try:
        with connection.transaction():
            script.limit_waiting()
            origin = pgq.create(script)
            obsolete = installed.obsolete_triggers(connection, found)
            _lock(script, found, obsolete)
            script.run(schema.statements(identity, origin))
            pgq.harden(script)
            if fresh:
                script.run(schema.queue())
            script.run(trigger.removal() for trigger in obsolete)
            _capture(script, source, found)
            if since is not None:
                script.run(disabling.end(since))
            findings = _linted(connection, identity.source, found)
            if dry_run:
                raise DryRun
    except DryRun:
        pass
    return fresh, findings


def _lock(script: Script, found: Sequence[Table], obsolete: Sequence[installed.Trigger]) -> None:
    """Triggers are made beside readers, and dropped beside nobody."""
    dropped = {(trigger.schema, trigger.relation) for trigger in obsolete}
    wanted = {
        name for table in found for name in (table.name, table.parent.table if table.parent else "") if name
    }
    made = {(schema, relation) for schema, _, relation in (name.partition(".") for name in wanted)}
    script.lock(
        [sql.Identifier(*name) for name in sorted(made - dropped)],
        [sql.Identifier(*name) for name in sorted(dropped)],
    )


def _capture(script: Script, source: settings.Source, found: Sequence[Table]) -> None:
    names = queue_names(script.connection)
    assert names is not None  # made before if it was not there
    script.run(triggers.shared_objects(names, source.emitters))
    for table in found:
        script.run(triggers.statements(table, names))
    script.run(installed.obsolete_functions(script.connection, found))
    script.run(schema.guard(names))
    script.run(schema.seal(found))


def _linted(connection: Connection, source: str, found: Sequence[Table]) -> list[Finding]:
    findings = lint(connection, [table.name for table in found])
    refused = [f"source {source}: {finding}" for finding in findings if finding.level == "refuse"]
    if refused:
        raise ConfigurationError(tuple(refused))
    return findings
