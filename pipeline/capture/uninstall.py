"""Take everything of capture out of a source database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from psycopg import sql

from pipeline.capture import installed, pgq, schema
from pipeline.capture.queue import QUEUE, acquire, queue_names
from pipeline.capture.script import DryRun, Script, Statement
from pipeline.capture.session import Connection, session
from pipeline.control import actions, tables
from pipeline.control.database import ControlDatabase
from pipeline.errors import PermanentError, TransientError


def uninstall(
    database: ControlDatabase, name: str, url: str, *, actor: str, reason: str, dry_run: bool = False
) -> list[str]:
    """Take everything of ours out of the source, unpublished events included; returns the SQL.

    The relay must be stopped. The control database keeps the source's generation, so that an install to come goes
    above it. PgQ goes too if an install made it and it has no other queue. A PgQ that was there before keeps its
    functions' fixed search_path: taking that back would reopen a hole. Roles stay: other databases may use them.
    """
    with session(url) as connection:
        if not acquire(connection):
            raise PermanentError(f"the relay of {name} is running", hint="stop it first")
        script = Script(connection)
        try:
            with connection.transaction():
                script.limit_waiting()
                script.lock([], [trigger.identifier for trigger in installed.triggers(connection)])
                script.run(_removal(connection))
                if dry_run:
                    raise DryRun
        except DryRun:
            return script.statements
        except TransientError as error:
            raise TransientError(f"source {name}: {error.what}", hint=error.hint) from error
    tables.store(database, name, [])
    actions.record(database, actor=actor, verb="capture uninstall", subject=name, reason=reason)
    return script.statements


def _removal(connection: Connection) -> Iterable[Statement]:
    origin, queue = _origin(connection), queue_names(connection)
    for trigger in installed.triggers(connection):
        yield trigger.removal()
    if queue is not None:
        yield from schema.drop_queue()
    yield sql.SQL("DROP SCHEMA IF EXISTS cdc CASCADE")
    if pgq.present(connection):
        yield from pgq.removal(connection, origin, QUEUE)


def _origin(connection: Connection) -> pgq.Origin:
    """Who made PgQ; schemas of version 1 never did."""
    made = connection.execute("SELECT to_regclass('cdc.identity') IS NOT NULL").fetchone()
    if made is None or not made[0]:
        return "found"
    row = connection.execute("SELECT coalesce(to_jsonb(i)->>'pgq', 'found') FROM cdc.identity i").fetchone()
    return cast(pgq.Origin, row[0]) if row else "found"
