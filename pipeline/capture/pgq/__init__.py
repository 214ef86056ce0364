"""PgQ itself: the schema ``pgq`` of a source, made when it is missing, hardened, and dropped again if we made it.

Where ``CREATE EXTENSION`` is possible, PgQ is the extension. Elsewhere it is the same functions in PL/pgSQL, run from
``pgq_pl_only.sql`` beside this, which needs no superuser. Capture writes into PgQ's tables itself and asks PgQ only to
tick and to hand out batches, so both are equally fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Literal

from psycopg import sql

from pipeline.capture.script import Script, Statement
from pipeline.capture.session import Connection

Origin = Literal["found", "extension", "sql"]
"""Who made PgQ in this database: somebody before us, or we, in one of two ways."""

ROLES = "CREATE ROLE pgq_reader; CREATE ROLE pgq_writer; CREATE ROLE pgq_admin IN ROLE pgq_reader, pgq_writer"


def present(connection: Connection) -> bool:
    """True when the database has PgQ, whoever made it."""
    return _true(connection, "SELECT to_regclass('pgq.queue') IS NOT NULL")


def problems(connection: Connection, user: str) -> list[str]:
    """What keeps role `user`, which is this session's, from using PgQ or from making it; with the statement that helps."""
    if present(connection):
        if _true(connection, _MAY_USE):
            return []
        return [f"role {user} may not administer queues; run: GRANT pgq_admin TO {user}"]
    if _true(connection, _MAY_CREATE_EXTENSION) or _true(connection, _MAY_RUN_SQL):
        return []
    return [f"has no PgQ and role {user} may not make its roles; as a role that may, run: {ROLES}"]


def create(script: Script) -> Origin:
    """Make PgQ unless it is there; the caller has seen that `problems` has none."""
    if present(script.connection):
        return "found"
    if _true(script.connection, _MAY_CREATE_EXTENSION):
        script.run([sql.SQL("CREATE EXTENSION pgq")])
        return "extension"
    text = (files("pipeline.capture.pgq") / "pgq_pl_only.sql").read_text(encoding="utf-8")
    script.run([sql.SQL(text)])
    return "sql"


def harden(script: Script) -> None:
    """Fix the search_path of PgQ's SECURITY DEFINER functions: without it they run what a caller's schema offers."""
    rows = script.connection.execute(
        "SELECT format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', p.oid::regprocedure) FROM pg_proc p"
        " WHERE p.pronamespace = 'pgq'::regnamespace AND p.prosecdef"
        " AND NOT coalesce(p.proconfig::text LIKE '%search_path%', false) ORDER BY 1"
    ).fetchall()
    for (statement,) in rows:
        script.attempt(statement)


def removal(connection: Connection, origin: Origin, queue: str) -> Iterable[Statement]:
    """What takes PgQ out again; nothing when it was there before us, or when it has queues besides `queue` by now."""
    row = connection.execute("SELECT 1 FROM pgq.queue WHERE queue_name <> %s LIMIT 1", (queue,)).fetchone()
    if row is None and origin == "extension":
        yield sql.SQL("DROP EXTENSION pgq CASCADE")
    elif row is None and origin == "sql":
        yield sql.SQL("DROP SCHEMA pgq CASCADE")


# Roles that made PgQ themselves own it and need not be in pgq_admin.
_MAY_USE = """
SELECT coalesce(pg_has_role(to_regrole('pgq_admin'), 'USAGE'), false) OR pg_has_role(nspowner, 'USAGE')
FROM pg_namespace WHERE nspname = 'pgq'
"""
_MAY_CREATE_EXTENSION = """
SELECT coalesce(bool_or(rolsuper OR trusted AND has_database_privilege(current_database(), 'CREATE')), false)
FROM pg_available_extension_versions, pg_roles WHERE name = 'pgq' AND rolname = current_user
"""
_MAY_RUN_SQL = """
SELECT rolcreaterole OR rolsuper OR (SELECT count(*) = 3 FROM pg_roles WHERE rolname IN ('pgq_reader', 'pgq_writer', 'pgq_admin'))
FROM pg_roles WHERE rolname = current_user
"""


def _true(connection: Connection, query: str) -> bool:
    row = connection.execute(query.encode()).fetchone()
    return row is not None and bool(row[0])
