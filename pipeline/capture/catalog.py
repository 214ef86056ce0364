"""The configured tables as PostgreSQL's catalog has them, or every reason why they cannot be captured, at once."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from pipeline import settings
from pipeline.capture.session import Connection
from pipeline.domain.table import Column, Table
from pipeline.errors import ConfigurationError

TRIGGER = "!cdc"
TRUNCATE_TRIGGER = "!cdc_truncate"

INTEGERS = frozenset({"smallint", "integer", "bigint"})
_TEXTS = frozenset({"text", "character varying"})
_KEY_TYPES = INTEGERS | _TEXTS | {"uuid", "boolean"}
_MERCHANT_TYPES = INTEGERS | _TEXTS | {"character", "uuid"}
_TYPES = _KEY_TYPES | {
    "numeric",
    "real",
    "double precision",
    "character",
    "date",
    "timestamp without time zone",
    "timestamp with time zone",
    "time without time zone",
    "json",
    "jsonb",
    "bytea",
    "inet",
}
_KINDS = {
    "c": "a composite type",
    "d": "a domain",
    "e": "an enum",
    "m": "a multirange",
    "r": "a range",
}
_RELATIONS = {
    "p": "is partitioned",
    "f": "is a foreign table",
    "v": "is a view",
    "m": "is a materialized view",
}


@dataclass(frozen=True, slots=True)
class _Attribute:
    """One column; ``base`` is its type without modifier, ``kind`` pg_type's typtype, or A for an array."""

    name: str
    type: str
    base: str
    nullable: bool
    kind: str
    deterministic: bool


def read(connection: Connection, name: str, source: settings.Source) -> list[Table]:
    """The tables of source `name`, ordered by name; ConfigurationError lists whatever stands against capturing them."""
    problems = _source_problems(connection)
    tables = []
    for table, configured in sorted(source.tables.items()):
        found, reasons = _table(connection, name, table, configured)
        problems += [f"source {name}, table {table}: {reason}" for reason in reasons]
        if found is not None:
            tables.append(found)
    if problems:
        raise ConfigurationError(tuple(problems))
    return tables


def _source_problems(connection: Connection) -> list[str]:
    row = connection.execute(
        "SELECT to_regclass('pgq.queue') IS NOT NULL, to_regrole('pgq_admin'), to_regrole('pgq_admin') IS NOT NULL"
        " AND pg_has_role('pgq_admin', 'USAGE'), pg_has_role('pg_read_all_stats', 'USAGE'), current_database(),"
        " current_user, has_database_privilege(current_database(), 'CREATE'), current_setting('server_encoding'),"
        " current_setting('server_version_num')::integer"
    ).fetchone()
    assert row is not None  # a SELECT without FROM yields one row
    pgq, admin, has_admin, has_stats, database, user, creates, encoding, version = row
    checks = {
        "has no PgQ; as a superuser, install the package postgresql-NN-pgq3 and run: CREATE EXTENSION pgq": not pgq,
        f"role {user} may not administer queues; run: GRANT pgq_admin TO {user}": pgq
        and admin
        and not has_admin,
        f"role {user} may not see other sessions' snapshots; run: GRANT pg_monitor TO {user}": not has_stats,
        f"role {user} may not create a schema; run: GRANT CREATE ON DATABASE {database} TO {user}": not creates,
        f"has encoding {encoding}; only UTF8 can be captured": encoding != "UTF8",
        f"is PostgreSQL {version // 10000}; 14 or newer is needed": version < 140000,
    }
    return [f"database {database} {problem}" for problem, applies in checks.items() if applies]


def _table(
    connection: Connection, source: str, name: str, configured: settings.SourceTable
) -> tuple[Table | None, list[str]]:
    schema, relation = name.split(".", 1)
    row = connection.execute(
        "SELECT c.oid, c.relkind, c.relpersistence, c.relforcerowsecurity, c.relispartition OR EXISTS"
        " (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)),"
        " has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'TRIGGER')"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (schema, relation),
    ).fetchone()
    if row is None:
        return None, ["does not exist"]
    oid, kind, persistence, row_security, inherits, allowed = row
    if kind != "r":
        return None, [f"{_RELATIONS.get(kind, 'is no table')}; this version captures plain tables only"]
    attributes = _attributes(connection, oid)
    key, problems = _key(connection, oid, attributes)
    if inherits:
        problems.append("is a partition or inherits; this version captures plain tables only")
    if persistence != "p":
        problems.append("is unlogged or temporary: a crash empties it without a trace")
    if row_security:
        problems.append("forces row security on its owner, so a snapshot could miss rows")
    if not allowed:
        problems.append("role pipeline needs SELECT and TRIGGER on it: make it a member of the owning role")
    problems += _column_problems(attributes) + _merchant_problems(attributes, configured.merchant.column)
    problems += _trigger_problems(connection, oid)
    columns = tuple(Column(a.name, a.type, a.nullable) for a in attributes)
    return Table(
        source, name, configured.type or relation, configured.merchant.column, key, columns
    ), problems


def _attributes(connection: Connection, oid: int) -> list[_Attribute]:
    rows = connection.execute(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, NULL), NOT a.attnotnull,"
        " CASE WHEN t.typcategory = 'A' THEN 'A' ELSE t.typtype::text END, coalesce(l.collisdeterministic, true)"
        " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation"
        " WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        (oid,),
    )
    return [_Attribute(*row) for row in rows]


def _key(connection: Connection, oid: int, attributes: list[_Attribute]) -> tuple[tuple[str, ...], list[str]]:
    row = connection.execute(
        "SELECT condeferrable, ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY k(number, place)"
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = number ORDER BY place)"
        " FROM pg_constraint WHERE conrelid = %s AND contype = 'p'",
        (oid,),
    ).fetchone()
    if row is None:
        return (), ["has no primary key; add one: without it no change can be told from another row's"]
    deferrable, key = row
    problems = []
    if deferrable:
        problems.append(
            "its primary key is deferrable: two rows may share a key for a while, and events lose order"
        )
    for attribute in attributes:
        if attribute.name in key and attribute.base not in _KEY_TYPES:
            problems.append(
                f'key column "{attribute.name}" is {attribute.type}; keys are integers, text, uuid or boolean'
            )
        if attribute.name in key and not attribute.deterministic:
            problems.append(
                f'key column "{attribute.name}" has a nondeterministic collation: equal keys may differ'
            )
    return tuple(key), problems


def _column_problems(attributes: list[_Attribute]) -> list[str]:
    problems = []
    seen: dict[str, str] = {}
    for attribute in attributes:
        name = attribute.name
        if name == "cdc" or name.startswith("_"):
            problems.append(f'column "{name}": the name "cdc" and a leading "_" belong to the sinks')
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            problems.append(f'columns "{twin}" and "{name}" are one and the same in the warehouse')
        if attribute.base not in _TYPES:
            kind = "an array" if attribute.kind == "A" else _KINDS.get(attribute.kind, "not supported")
            problems.append(
                f'column "{name}" is {attribute.type}: {kind}, which this version does not capture'
                if kind != "not supported"
                else f'column "{name}" is {attribute.type}, a type this version does not capture'
            )
    return problems


def _merchant_problems(attributes: list[_Attribute], column: str) -> list[str]:
    base = {attribute.name: attribute.base for attribute in attributes}
    if column not in base:
        return [f'merchant column "{column}" does not exist']
    if base[column] not in _MERCHANT_TYPES:
        return [f'merchant column "{column}" is {base[column]}; merchants are integers, text or uuid']
    return []


def _trigger_problems(connection: Connection, oid: int) -> list[str]:
    triggers = connection.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal AND tgtype & 1 = 1 AND tgtype & 66 = 0"
        " AND tgname <> %s ORDER BY 1",
        (oid, TRIGGER),
    ).fetchall()
    cascades = connection.execute(
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = %s AND confrelid = %s"
        " AND confupdtype IN ('c', 'n', 'd')",
        (oid, oid),
    ).fetchall()
    strict = "events could carry a stale row; this version has no strict mode for it"
    return [f'row trigger "{name}" fires AFTER changes: {strict}' for (name,) in triggers] + [
        f'foreign key "{name}" changes other rows of the same table on update: {strict}'
        for (name,) in cascades
    ]


def queue_problems(connection: Connection, sequence: str) -> list[str]:
    """What is wrong with the queue's event sequence: ev_ids order a row's changes only without a cache."""
    row = connection.execute(
        sql.SQL("SELECT seqcache FROM pg_sequence WHERE seqrelid = to_regclass({})").format(
            sql.Literal(sequence)
        )
    ).fetchone()
    if row is not None and row[0] == 1:
        return []
    return [f"sequence {sequence} hands out numbers in blocks; run: ALTER SEQUENCE {sequence} CACHE 1"]
