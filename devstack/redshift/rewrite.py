"""From one statement's text to the plan for it: the list of statements that are let through."""

from __future__ import annotations

from collections.abc import Callable

from devstack.redshift import ddl, dml
from devstack.redshift.copy_statement import copy
from devstack.redshift.errors import SqlError, not_covered, unsupported
from devstack.redshift.plans import Forward, Ignored, Plan, Truncate
from devstack.redshift.schemas import drop
from devstack.redshift.tokens import Reader

SNAPSHOT, SERIALIZABLE = "REPEATABLE READ", "SERIALIZABLE"  # Redshift's levels in PostgreSQL's words

_MAX_STATEMENT = 16 << 20
_WORK = ("WORK", "TRANSACTION")
_REDSHIFT_SETTINGS = frozenset(
    ("QUERY_GROUP", "WLM_QUERY_SLOT_COUNT", "ENABLE_RESULT_CACHE_FOR_SESSION", "ANALYZE_THRESHOLD_PERCENT")
)
_SHARED_SETTINGS = frozenset(("STATEMENT_TIMEOUT", "SEARCH_PATH", "TIMEZONE", "APPLICATION_NAME"))


def plan(sql: str, isolation: str = SNAPSHOT) -> Plan:
    """The plan for a statement. Raises SqlError where Redshift, or the stand-in, refuses it."""
    size = len(sql.encode())
    if size > _MAX_STATEMENT:
        limit = f"Statement Size: {size} bytes. Maximum Allowed: {_MAX_STATEMENT} bytes"
        raise SqlError(f"Statement is too large. {limit}", "54001")
    reader = Reader(sql)
    if reader.done:
        return Forward("", "")
    verb = reader.next().word
    if verb in ("BEGIN", "START"):
        return _begin(reader, isolation)
    planner = _PLANNERS.get(verb)
    if planner is None:
        raise unsupported(f"SQL command {verb}") if verb in _REFUSED else not_covered(f"SQL command {verb}")
    return planner(reader)


def _begin(reader: Reader, isolation: str) -> Plan:
    _skip_work(reader)
    return Forward("BEGIN", f"BEGIN ISOLATION LEVEL {isolation}")


def _commit(reader: Reader) -> Plan:
    _skip_work(reader)
    return Forward("COMMIT", "COMMIT")


def _rollback(reader: Reader) -> Plan:
    _skip_work(reader)
    return Forward("ROLLBACK", "ROLLBACK")


def _skip_work(reader: Reader) -> None:
    if reader.peek() in _WORK:
        reader.next()
    reader.end()


def _select(reader: Reader) -> Plan:
    return dml.select(reader)


def _truncate(reader: Reader) -> Plan:
    reader.accept("TABLE")
    table = reader.name()
    reader.end()
    return Truncate(table)


def _vacuum(_reader: Reader) -> Plan:
    return Ignored("VACUUM", alone=True)


def _analyze(_reader: Reader) -> Plan:
    return Ignored("ANALYZE")


def _set(reader: Reader) -> Plan:
    reader.accept("SESSION") or reader.accept("LOCAL")
    name = reader.next().word
    if name in _REDSHIFT_SETTINGS:
        return Ignored("SET")
    if name not in _SHARED_SETTINGS:
        raise not_covered(f"SET {name.lower()}")
    return Forward("SET", reader.sql)


def _show(reader: Reader) -> Plan:
    name = reader.next().word
    reader.end()
    if name not in _SHARED_SETTINGS:
        raise not_covered(f"SHOW {name.lower()}")
    return Forward("SHOW", f"SHOW {name}")


_REFUSED = frozenset(("SAVEPOINT", "RELEASE", "LISTEN", "NOTIFY", "UNLISTEN", "DO", "CLUSTER", "REINDEX"))
_PLANNERS: dict[str, Callable[[Reader], Plan]] = {
    "SELECT": _select,
    "WITH": _select,
    "INSERT": dml.insert,
    "UPDATE": dml.update,
    "DELETE": dml.delete,
    "MERGE": dml.merge,
    "LOCK": dml.lock,
    "COPY": copy,
    "CREATE": ddl.create,
    "ALTER": ddl.alter,
    "DROP": drop,
    "TRUNCATE": _truncate,
    "COMMIT": _commit,
    "END": _commit,
    "ROLLBACK": _rollback,
    "ABORT": _rollback,
    "VACUUM": _vacuum,
    "ANALYZE": _analyze,
    "SET": _set,
    "SHOW": _show,
}
