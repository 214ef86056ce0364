"""A person's word that a database is the source from now on, although it lacks its past or is a copy of it.

Its generation goes above every one ever used, so its changes win in the sinks, and every row is published again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline import settings
from pipeline.capture import install, installed, schema
from pipeline.capture.identity import Identity, read_identity, server_of
from pipeline.capture.lineage import establish, raise_generation
from pipeline.capture.progress import Progress
from pipeline.capture.queue import acquire, queue_names
from pipeline.capture.script import Script
from pipeline.capture.session import Connection, session
from pipeline.control import actions, snapshots, sources
from pipeline.control.database import ControlDatabase
from pipeline.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What stood against this database, and the generation it has now; None after a dry run."""

    objection: str
    generation: int | None


def confirm(
    database: ControlDatabase,
    name: str,
    source: settings.Source,
    url: str,
    published: Progress | None,
    *,
    actor: str,
    reason: str,
    dry_run: bool = False,
) -> Confirmed | None:
    """Accept this database as source `name`; None when nothing stands against it. Its relay must be stopped.

    `published` is the source's newest progress in Kafka. May be repeated; dying in between leaves it refused as before.
    """
    with session(url) as connection:
        if not acquire(connection):
            raise PermanentError(f"the relay of {name} is running", hint="stop it first")
        try:
            establish(connection, database, name, published)
        except PermanentError as objection:
            stored = read_identity(connection)
            if stored is None or stored.source != name:
                raise
            if dry_run:
                return Confirmed(objection.what, None)
            generation = _accept(connection, database, name, source, url, stored, published, actor)
            details = {"objection": objection.what, "generation": generation}
            actions.record(
                database, actor=actor, verb="capture confirm", subject=name, reason=reason, details=details
            )
            return Confirmed(objection.what, generation)
    return None


def _accept(
    connection: Connection,
    database: ControlDatabase,
    name: str,
    source: settings.Source,
    url: str,
    stored: Identity,
    published: Progress | None,
    actor: str,
) -> int:
    server = server_of(connection)
    # First the request: a raise without its snapshot would leave in the sinks what is not in this database.
    snapshots.request(database, name)
    if (stored.system, stored.database) == (server.system, server.database):
        raised = raise_generation(connection, database, replace(stored, timeline=server.timeline), published)
        connection.execute("DELETE FROM cdc.progress")
        return raised.generation
    used = max(stored.generation, published.generation if published is not None else 0)
    sources.store(database, sources.Source(name, stored.uuid, used))
    _drop_queue(connection)
    return install.install(database, name, source, url, actor=actor).generation


def _drop_queue(connection: Connection) -> None:
    """A queue knows its own server's transaction ids, and those of its origin mean nothing here. Settings stay."""
    script = Script(connection)
    with connection.transaction():
        script.limit_waiting()
        triggers = installed.triggers(connection)
        script.lock([], [trigger.identifier for trigger in triggers])
        script.run(trigger.removal() for trigger in triggers)
        if queue_names(connection) is not None:
            script.run(schema.drop_queue())
