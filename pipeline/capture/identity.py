"""Who a source database is, and its generation: the part of every version that outlives a queue.

A database's own uuid travels with every copy of it; the server's identifier and the database's oid tell a copy from
the original, the timeline a promoted standby from the primary it followed, and the newest published mark whether
anything that was published is missing.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.capture.queue import queue_names
from pipeline.capture.session import Connection
from pipeline.control import sources
from pipeline.control.database import ControlDatabase
from pipeline.errors import ConfigurationError, PermanentError

SCHEMA_VERSION = 3
"""The version of what an install leaves in a source; 1 knew no version."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a source is: the uuid travels with every copy, the server's identifier and the database's oid do not.

    ``timeline`` is the one on which a relay last worked, None before the first.
    """

    source: str
    uuid: str
    system: int
    database: int
    generation: int
    timeline: int | None = None


def read_identity(connection: Connection) -> Identity | None:
    """The identity stored in the source; None when capture is not installed."""
    row = connection.execute(
        "SELECT to_regclass('cdc.identity') IS NOT NULL, to_regclass('cdc.progress') IS NOT NULL"
    ).fetchone()
    if row is None or not row[0]:
        return None
    stored = connection.execute(_STORED if row[1] else _STORED_BEFORE_TIMELINES).fetchone()
    return None if stored is None else Identity(*stored)


def schema_version(connection: Connection) -> int | None:
    """The version that is installed in the source; None when there is none."""
    if read_identity(connection) is None:
        return None
    row = connection.execute(
        "SELECT coalesce((to_jsonb(i)->>'version')::integer, 1) FROM cdc.identity i"
    ).fetchone()
    return None if row is None else int(row[0])


_STORED_BEFORE_TIMELINES = (
    "SELECT source, uuid::text, system_identifier, database_oid, generation FROM cdc.identity"
)
_STORED = "SELECT source, uuid::text, system_identifier, database_oid, generation, timeline FROM cdc.identity"


class Server(NamedTuple):
    """Where a session has come out: the cluster, the database in it, and the history the cluster is on."""

    system: int
    database: int
    timeline: int


def server_of(connection: Connection) -> Server:
    """The server of a session; it must be a primary. The control file's timeline would lag behind a promotion."""
    row = connection.execute(
        "SELECT (SELECT system_identifier FROM pg_control_system()),"
        " (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),"
        " ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer"
    ).fetchone()
    assert row is not None  # a SELECT without FROM yields one row
    return Server(*row)


def next_identity(connection: Connection, database: ControlDatabase, name: str) -> Identity:
    """The identity to install: the stored one, or the next."""
    stored, known = read_identity(connection), sources.load(database, name)
    if stored is not None and stored.source != name:
        raise ConfigurationError((f"source {name}: capture is installed there as source {stored.source}",))
    server = server_of(connection)
    if stored is not None and queue_names(connection) is not None:
        if (stored.system, stored.database) != (server.system, server.database):
            raise PermanentError(
                f"source {name} is a copy of another database", hint=f"run: pipeline capture confirm {name}"
            )
        return stored
    seen = max(sources.highest_generation(database), stored.generation if stored else 0)
    generation = 1 if stored is None and known is None else seen + 1
    return Identity(name, str(uuid.uuid4()), server.system, server.database, generation)
