"""Put capture into a source database, and take it out again: one transaction each, repeatable at any time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pipeline import settings
from pipeline.capture import catalog, progress, triggers
from pipeline.capture.identity import Identity, next_identity
from pipeline.capture.marks import take_mark
from pipeline.capture.queue import CONSUMER, QUEUE, acquire, queue_names
from pipeline.capture.session import Connection, session
from pipeline.control import actions, sources, tables
from pipeline.control.database import ControlDatabase
from pipeline.domain.table import Table
from pipeline.errors import ConfigurationError, PermanentError, TransientError

Statement = sql.SQL | sql.Composed
_LOCK_TIMEOUT = "10s"


@dataclass(frozen=True, slots=True)
class Installed:
    """What an install did: its SQL, the tables, the source's generation. ``advice`` is SQL for the owner of PgQ's functions."""

    statements: Sequence[str]
    tables: Sequence[Table]
    generation: int
    advice: Sequence[str]


class _DryRun(Exception):
    """Rolls the transaction back after everything in it has worked."""


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
    """
    with session(url) as connection:
        found = catalog.read(connection, name, source)
        identity = next_identity(connection, database, name)
        if not dry_run:
            sources.store(database, sources.Source(name, identity.uuid, identity.generation))
        script = _Script(connection)
        fresh = _run(script, identity, source, found, dry_run)
        if not dry_run:
            if fresh:
                take_mark(connection)
            tables.store(database, name, found)
            details = {"generation": identity.generation, "tables": [table.name for table in found]}
            actions.record(database, actor=actor, verb="capture install", subject=name, details=details)
    return Installed(script.statements, found, identity.generation, script.advice)


def uninstall(
    database: ControlDatabase, name: str, url: str, *, actor: str, reason: str, dry_run: bool = False
) -> list[str]:
    """Take everything of ours out of the source, unpublished events included; returns the SQL.

    The relay must be stopped. The control database keeps the source's generation, so that an install to come goes
    above it. PgQ's functions keep their fixed search_path: taking that back would reopen a hole.
    """
    with session(url) as connection:
        if not acquire(connection):
            raise PermanentError(f"the relay of {name} is running", hint="stop it first")
        script = _Script(connection)
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
                script.run(_removal(connection))
                if dry_run:
                    raise _DryRun
        except _DryRun:
            return script.statements
    tables.store(database, name, [])
    actions.record(database, actor=actor, verb="capture uninstall", subject=name, reason=reason)
    return script.statements


class _Script:
    """Runs statements and remembers them as text."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.statements: list[str] = []
        self.advice: list[str] = []

    def run(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            self.statements.append(statement.as_string(self.connection))
            self.connection.execute(statement)

    def attempt(self, statement: str) -> None:
        """Run what only an owner may; without that right it becomes advice."""
        try:
            with self.connection.transaction():
                self.connection.execute(statement.encode())
            self.statements.append(statement)
        except psycopg.errors.InsufficientPrivilege:
            self.advice.append(statement)


def _run(
    script: _Script, identity: Identity, source: settings.Source, found: Sequence[Table], dry_run: bool
) -> bool:
    """Everything in one transaction; True when the queue was made anew."""
    connection = script.connection
    fresh = queue_names(connection) is None
    try:
        with connection.transaction():
            connection.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
            script.run(_schema(identity, fresh))
            _harden(script)
            names = queue_names(connection)
            assert names is not None  # made above if it was not there
            problems = catalog.queue_problems(connection, names.sequence)
            if problems:
                raise ConfigurationError(tuple(problems))
            script.run(_obsolete(connection, found))
            script.run(triggers.shared_objects(names, source.emitters))
            for table in found:
                script.run(triggers.statements(table, names))
            if dry_run:
                raise _DryRun
    except _DryRun:
        pass
    except psycopg.errors.LockNotAvailable as error:
        raise TransientError(
            f"source {identity.source}: a table is locked by another session",
            hint="try again when no long transaction holds a captured table",
        ) from error
    return fresh


def _schema(identity: Identity, fresh: bool) -> Iterable[Statement]:
    yield sql.SQL("CREATE SCHEMA IF NOT EXISTS cdc")
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.identity (one boolean PRIMARY KEY DEFAULT true CHECK (one), source text NOT NULL,"
        " uuid uuid NOT NULL, system_identifier bigint NOT NULL, database_oid bigint NOT NULL,"
        " generation integer NOT NULL, installed_at timestamptz NOT NULL)"
    )
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.marks (ev_id bigint PRIMARY KEY, generation integer NOT NULL,"
        " txid bigint NOT NULL DEFAULT txid_current(), at timestamptz NOT NULL DEFAULT now())"
    )
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.notices (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " table_name text NOT NULL, reason text NOT NULL, at timestamptz NOT NULL DEFAULT now(),"
        " txid bigint NOT NULL DEFAULT txid_current())"
    )
    yield from progress.schema()
    if fresh:
        yield from _queue()
    yield sql.SQL(
        "INSERT INTO cdc.identity (source, uuid, system_identifier, database_oid, generation, installed_at)"
        " VALUES ({}, {}, {}, {}, {}, now()) ON CONFLICT (one) DO UPDATE SET uuid = EXCLUDED.uuid,"
        " system_identifier = EXCLUDED.system_identifier, database_oid = EXCLUDED.database_oid,"
        " generation = EXCLUDED.generation, installed_at = EXCLUDED.installed_at"
    ).format(
        sql.Literal(identity.source),
        sql.Literal(identity.uuid),
        sql.Literal(identity.system),
        sql.Literal(identity.database),
        sql.Literal(identity.generation),
    )


def _queue() -> Iterable[Statement]:
    queue, consumer = sql.Literal(QUEUE), sql.Literal(CONSUMER)
    yield sql.SQL("TRUNCATE cdc.marks, cdc.progress")
    yield sql.SQL("SELECT pgq.create_queue({})").format(queue)
    # With both at zero every call of the ticker ticks: the relay decides when.
    yield sql.SQL("SELECT pgq.set_queue_config({}, 'ticker_max_lag', '0')").format(queue)
    yield sql.SQL("SELECT pgq.set_queue_config({}, 'ticker_idle_period', '0')").format(queue)
    yield sql.SQL("SELECT pgq.set_queue_config({}, 'rotation_period', '30 minutes')").format(queue)
    yield sql.SQL("SELECT pgq.register_consumer({}, {})").format(queue, consumer)


def _harden(script: _Script) -> None:
    """Fix the search_path of PgQ's SECURITY DEFINER functions: without it they run what a caller's schema offers."""
    rows = script.connection.execute(
        "SELECT format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', p.oid::regprocedure) FROM pg_proc p"
        " WHERE p.pronamespace = 'pgq'::regnamespace AND p.prosecdef"
        " AND NOT coalesce(p.proconfig::text LIKE '%search_path%', false) ORDER BY 1"
    ).fetchall()
    for (statement,) in rows:
        script.attempt(statement)


def _obsolete(connection: Connection, found: Sequence[Table]) -> Iterable[Statement]:
    """What an earlier install made for tables that are no longer configured."""
    places = triggers.places(found)
    for schema, table, trigger, root in _triggers(connection):
        if (root, trigger) not in places:
            yield sql.SQL("DROP TRIGGER {} ON {}").format(
                sql.Identifier(trigger), sql.Identifier(schema, table)
            )
    names = triggers.function_names(found)
    functions = connection.execute(
        "SELECT proname, format('DROP FUNCTION %s', oid::regprocedure) FROM pg_proc"
        " WHERE pronamespace = 'cdc'::regnamespace ORDER BY 1"
    ).fetchall()
    for name, statement in functions:
        if name not in names:
            yield sql.SQL(statement)
            yield sql.SQL("DROP TYPE IF EXISTS cdc.{}").format(sql.Identifier(name))


def _triggers(connection: Connection) -> list[tuple[str, str, str, str]]:
    """Schema, table, trigger, and the table at the root of the partitions; not those that PostgreSQL itself clones."""
    return connection.execute(
        "SELECT n.nspname, c.relname, t.tgname, rn.nspname || '.' || r.relname FROM pg_trigger t"
        " JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_class r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid)"
        " JOIN pg_namespace rn ON rn.oid = r.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid"
        " JOIN pg_namespace s ON s.oid = p.pronamespace"
        " WHERE s.nspname = 'cdc' AND t.tgparentid = 0 ORDER BY 1, 2, 3"
    ).fetchall()


def _removal(connection: Connection) -> Iterable[Statement]:
    for schema, table, trigger, _root in _triggers(connection):
        yield sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(trigger), sql.Identifier(schema, table))
    yield sql.SQL("DROP SCHEMA IF EXISTS cdc CASCADE")
    if queue_names(connection) is not None:
        yield sql.SQL("SELECT pgq.drop_queue({}, true)").format(sql.Literal(QUEUE))
