"""Who a source database is, and its generation: the part of every version that outlives a queue."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pipeline.capture.queue import queue_names
from pipeline.capture.session import Connection
from pipeline.control import sources
from pipeline.control.database import ControlDatabase
from pipeline.errors import ConfigurationError, PermanentError


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a source is: the uuid travels with every copy, the server's identifier and the database's oid do not."""

    source: str
    uuid: str
    system: int
    database: int
    generation: int


def read_identity(connection: Connection) -> Identity | None:
    """The identity stored in the source; None when capture is not installed."""
    row = connection.execute("SELECT to_regclass('cdc.identity') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return None
    stored = connection.execute(
        "SELECT source, uuid::text, system_identifier, database_oid, generation FROM cdc.identity"
    ).fetchone()
    return None if stored is None else Identity(*stored)


def check_identity(connection: Connection, database: ControlDatabase, name: str) -> Identity:
    """The identity, if this is the database that capture was installed in and the control database knows it so.

    PermanentError otherwise: a copy would publish its own changes under the original's name.
    """
    stored, known = read_identity(connection), sources.load(database, name)
    hint = f"run: pipeline capture install {name}"
    if stored is None:
        raise PermanentError(f"capture is not installed in source {name}", hint=hint)
    if (stored.source, stored.system, stored.database) != (name, *_server(connection)):
        raise PermanentError(
            f"this database is a copy of source {stored.source}, not source {name} itself",
            hint=f"run: pipeline capture uninstall {name}; pipeline capture install {name}",
        )
    if known is None or (known.identity, known.generation) != (stored.uuid, stored.generation):
        raise PermanentError(f"source {name} and the control database disagree on its generation", hint=hint)
    return stored


def next_identity(connection: Connection, database: ControlDatabase, name: str) -> Identity:
    """The identity to install: the stored one, or the next."""
    stored, known = read_identity(connection), sources.load(database, name)
    if stored is not None and stored.source != name:
        raise ConfigurationError((f"source {name}: capture is installed there as source {stored.source}",))
    system, oid = _server(connection)
    if stored is not None and queue_names(connection) is not None:
        if (stored.system, stored.database) != (system, oid):
            raise PermanentError(
                f"source {name} is a copy of another database", hint=f"run: pipeline capture uninstall {name}"
            )
        return stored
    seen = max(sources.highest_generation(database), stored.generation if stored else 0)
    generation = 1 if stored is None and known is None else seen + 1
    return Identity(name, str(uuid.uuid4()), system, oid, generation)


def _server(connection: Connection) -> tuple[int, int]:
    row = connection.execute(
        "SELECT (SELECT system_identifier FROM pg_control_system()),"
        " (SELECT oid::bigint FROM pg_database WHERE datname = current_database())"
    ).fetchone()
    assert row is not None  # a SELECT without FROM yields one row
    return row[0], row[1]
