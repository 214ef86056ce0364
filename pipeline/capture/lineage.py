"""Whether a database may publish as its source, and at which generation; asked by each relay once it holds the lock.

| the database | is recognised by | so the relay |
|---|---|---|
| is the one known | identity, newest published mark there | goes on, at its generation |
| is a standby, promoted with all that was published | a higher timeline, mark there | goes on, at its generation |
| is a standby or a restored backup that lacks some of it | a higher timeline, mark missing | raises the generation, asks for a snapshot |
| is a copy | server or database differ; or the mark is missing on the same timeline | refuses until confirmed |
| was replaced by a promoted standby | a higher timeline was published | refuses |
| is ahead of the control database | a generation the control database has not | refuses |
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from pipeline.capture.identity import (
    SCHEMA_VERSION,
    Identity,
    Server,
    read_identity,
    schema_version,
    server_of,
)
from pipeline.capture.progress import Progress, holds
from pipeline.capture.session import Connection
from pipeline.control import snapshots, sources
from pipeline.control.database import ControlDatabase
from pipeline.domain.version import MAX_GENERATION
from pipeline.errors import FencedError, PermanentError, PipelineError, TransientError
from pipeline.failpoints import passes

LAST_FOR_MOVES = 16_000
"""From this generation on none is raised for a merchant's move."""


class RaisedError(PipelineError):
    """The generation was raised as asked: this session is over."""


def establish(
    connection: Connection, database: ControlDatabase, name: str, published: Progress | None
) -> Identity:
    """The identity to publish under, with the server's timeline; PermanentError when this database must not publish.

    `published` is the source's newest progress in Kafka.
    """
    server = server_of(connection)
    stored = _original(connection, name, server)
    known = _require_known(database, stored, published)
    identity = replace(stored, timeline=server.timeline)
    if published is not None and published.generation >= stored.generation:
        if published.timeline > server.timeline:
            raise PermanentError(
                f"source {name} has moved on to timeline {published.timeline}, this server is on {server.timeline}",
                hint=f"another server was promoted in its place: see {name.upper()}_DATABASE_URL",
            )
        if published.generation > stored.generation or not holds(connection, published.mark):
            return _after_a_loss(connection, database, stored, identity, published)
    elif published is None and _finished(connection):
        raise _unconfirmed(
            name, "Kafka has no progress of a source that has published: was the topic replaced?"
        )
    if known > identity.generation:  # a raise that was cut off between the control database and the source
        return raise_generation(connection, database, identity, published)
    _note_timeline(connection, database, identity)
    return identity


def check_still_ours(database: ControlDatabase, identity: Identity) -> int | None:
    """FencedError when the source is another database by now, or on a later timeline. An outage proves nothing.

    The generation that this source is asked to go above, None when it is not asked, or is above it.
    """
    try:
        known = sources.load(database, identity.source)
    except TransientError:
        return None
    if known is not None and (
        known.identity != identity.uuid
        or known.generation > identity.generation
        or (known.timeline or 0) > (identity.timeline or 0)
    ):
        raise FencedError(
            f"source {identity.source} was taken over by another server or raised to another generation",
            hint="the next relay will tell",
        )
    asked = known.raise_above if known is not None else None
    return asked if asked is not None and asked >= identity.generation else None


def raise_as_asked(connection: Connection, database: ControlDatabase, identity: Identity, above: int) -> None:
    """Raise the generation, and end the session by RaisedError; the next one works under the new generation.

    To be called between batches. Close to the last generation the request is taken back instead, so that failovers find
    some left.
    """
    highest = sources.highest_generation(database)
    if highest >= LAST_FOR_MOVES:
        structlog.get_logger().error(
            "generation not raised: too few are left", highest=highest, asked_above=above
        )
        sources.ask_to_raise(database, identity.source, None)
        return
    raised = raise_generation(connection, database, identity, None)
    raise RaisedError(f"source {identity.source} goes on at generation {raised.generation}, as asked")


def raise_generation(
    connection: Connection, database: ControlDatabase, identity: Identity, published: Progress | None
) -> Identity:
    """Go above every generation known anywhere; the control database first.

    To be called by who holds the source's lock, between batches. Who dies in between leaves the rest to the next relay.
    """
    known = max(
        sources.highest_generation(database),
        identity.generation,
        published.generation if published is not None else 0,
    )
    if known >= MAX_GENERATION:
        raise PermanentError(f"source {identity.source}: generation {known} is the last there is")
    raised = replace(identity, generation=known + 1)
    sources.store(database, sources.Source(raised.source, raised.uuid, raised.generation, raised.timeline))
    passes("generation.raised")
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = on")
        connection.execute(
            "UPDATE cdc.identity SET generation = %s, timeline = %s", (raised.generation, raised.timeline)
        )
    return raised


def _original(connection: Connection, name: str, server: Server) -> Identity:
    stored = read_identity(connection)
    if stored is None:
        raise PermanentError(
            f"capture is not installed in source {name}", hint=f"run: pipeline capture install {name}"
        )
    if stored.source != name:
        raise PermanentError(
            f"this database is captured as source {stored.source}, not as {name}",
            hint=f"run: pipeline capture uninstall {name}; pipeline capture install {name}",
        )
    if (stored.system, stored.database) != (server.system, server.database):
        raise _unconfirmed(name, f"this database is a copy of source {name}, not source {name} itself")
    version = schema_version(connection)
    if version != SCHEMA_VERSION:
        raise PermanentError(
            f"source {name} has version {version} of capture's schema, this release needs {SCHEMA_VERSION}",
            hint=f"run with the newer of both releases: pipeline capture install {name}",
        )
    return stored


def _require_known(database: ControlDatabase, stored: Identity, published: Progress | None) -> int:
    """The generation that the control database knows; one restored from an old backup would hand out some in use."""
    known = sources.load(database, stored.source)
    used = max(stored.generation, published.generation if published is not None else 0)
    if known is None or known.identity != stored.uuid or known.generation < used:
        found = f"{known.generation}" if known is not None and known.identity == stored.uuid else "none"
        verb = "confirm" if used > stored.generation else "install"
        raise PermanentError(
            f"source {stored.source} and the control database disagree on its generation: {used} is used,"
            f" {found} known; was the control database restored from an old backup?",
            hint=f"run: pipeline capture {verb} {stored.source}",
        )
    return known.generation


def _after_a_loss(
    connection: Connection,
    database: ControlDatabase,
    stored: Identity,
    identity: Identity,
    published: Progress,
) -> Identity:
    """Something that was published is not in this database."""
    if stored.timeline is None or identity.timeline is None or identity.timeline <= stored.timeline:
        raise _unconfirmed(
            stored.source,
            f"this database lacks what source {stored.source} published at tick {published.tick}:"
            " an old copy of its disk, or Kafka's topics are another's",
        )
    # First the request: a raise without its snapshot would leave in the sinks what never happened.
    snapshots.request(database, stored.source)
    raised = raise_generation(connection, database, identity, published)
    structlog.get_logger().error(
        "published changes are lost in the source: generation raised, snapshot requested",
        source=stored.source,
        tick=published.tick,
        timeline=identity.timeline,
        generation=raised.generation,
    )
    return raised


def _finished(connection: Connection) -> bool:
    """True when a batch with a mark was finished, and so published."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM cdc.progress p WHERE p.tick <= (SELECT s.sub_last_tick FROM pgq.subscription s"
        " JOIN pgq.queue q ON q.queue_id = s.sub_queue JOIN pgq.consumer c ON c.co_id = s.sub_consumer"
        " WHERE q.queue_name = 'cdc' AND c.co_name = 'relay'))"
    ).fetchone()
    return row is not None and bool(row[0])


def _note_timeline(connection: Connection, database: ControlDatabase, identity: Identity) -> None:
    sources.store(
        database, sources.Source(identity.source, identity.uuid, identity.generation, identity.timeline)
    )
    connection.execute(
        "UPDATE cdc.identity SET timeline = %s WHERE timeline IS DISTINCT FROM %s",
        (identity.timeline, identity.timeline),
    )


def _unconfirmed(name: str, what: str) -> PermanentError:
    return PermanentError(
        what, hint=f"if it is to be source {name} from now on: pipeline capture confirm {name}"
    )
