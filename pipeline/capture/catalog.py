"""The configured tables as PostgreSQL's catalog has them, or every reason why they cannot be captured, at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline import settings
from pipeline.capture import attributes, parents, pgq
from pipeline.capture.session import Connection
from pipeline.domain.table import Table
from pipeline.errors import ConfigurationError

TRIGGER = "!cdc"

_RELATIONS = {
    "f": "is a foreign table",
    "v": "is a view",
    "m": "is a materialized view",
}


@dataclass(frozen=True, slots=True)
class Examined:
    """What the catalog says to a configuration: the tables there are, what stands against the source and against each."""

    tables: dict[str, Table]
    problems: list[str]
    reasons: dict[str, list[str]]


def read(connection: Connection, name: str, source: settings.Source) -> list[Table]:
    """The tables of source `name`, ordered by name; ConfigurationError lists whatever stands against capturing them."""
    examined = examine(connection, name, source)
    problems = examined.problems + [
        f"source {name}, table {table}: {reason}"
        for table, reasons in examined.reasons.items()
        for reason in reasons
    ]
    if problems:
        raise ConfigurationError(tuple(problems))
    return list(examined.tables.values())


def examine(connection: Connection, name: str, source: settings.Source) -> Examined:
    """As `read`, but without judging."""
    problems = _source_problems(connection) + _role_problems(connection, source)
    found: dict[str, Table] = {}
    reasons: dict[str, list[str]] = {}
    for table, configured in sorted(source.tables.items()):
        read_table, reasons[table] = _table(connection, name, table, configured)
        if read_table is not None:
            found[table] = read_table
    for table, configured in source.tables.items():
        merchant = configured.merchant
        if merchant.parent is not None and merchant.on is not None and table in found:
            parent, more = parents.resolve(found[table], merchant.parent, merchant.on, found)
            found[table] = replace(found[table], parent=parent)
            reasons[table] += more or (
                [*parents.problems(connection, found[table], parent)] if parent else []
            )
    return Examined(found, problems, reasons)


def _source_problems(connection: Connection) -> list[str]:
    row = connection.execute(
        "SELECT pg_has_role('pg_read_all_stats', 'USAGE'), current_database(),"
        " current_user, has_database_privilege(current_database(), 'CREATE'), current_setting('server_encoding'),"
        " current_setting('server_version_num')::integer"
    ).fetchone()
    assert row is not None  # a SELECT without FROM yields one row
    has_stats, database, user, creates, encoding, version = row
    checks = {
        f"role {user} may not see other sessions' snapshots; run: GRANT pg_monitor TO {user}": not has_stats,
        f"role {user} may not create a schema; run: GRANT CREATE ON DATABASE {database} TO {user}": not creates,
        f"has encoding {encoding}; only UTF8 can be captured": encoding != "UTF8",
        f"is PostgreSQL {version // 10000}; 14 or newer is needed": version < 140000,
    }
    found = pgq.problems(connection, user) + [problem for problem, applies in checks.items() if applies]
    return [f"database {database} {problem}" for problem in found]


def _role_problems(connection: Connection, source: settings.Source) -> list[str]:
    roles = connection.execute(
        "SELECT role FROM unnest(%s::text[]) role WHERE role NOT IN (SELECT rolname FROM pg_roles)",
        (list(source.emitters),),
    )
    return [f'emitters: there is no role "{role}"' for (role,) in roles]


def _table(
    connection: Connection, source: str, name: str, configured: settings.SourceTable
) -> tuple[Table | None, list[str]]:
    schema, relation = name.split(".", 1)
    row = connection.execute(_TABLE, (schema, relation)).fetchone()
    if row is None:
        return None, ["does not exist"]
    oid, kind, persistent, row_security, partition, inherits, allowed = row
    if kind not in ("r", "p"):
        return None, [f"{_RELATIONS.get(kind, 'is no table')}; only tables can be captured"]
    found = attributes.read(connection, oid)
    key, problems = _key(connection, oid)
    if partition:
        problems.append("is a partition; capture the table it is a part of")
    elif inherits:
        problems.append(
            "inherits, or is inherited from: only tables that stand alone, or partitions, can be captured"
        )
    if not persistent:
        problems.append("is unlogged or temporary: a crash empties it without a trace")
    if row_security:
        problems.append(
            "row security applies to role pipeline, which could miss rows: make it a member of the owning role,"
            " or take FORCE ROW LEVEL SECURITY from the table"
        )
    if not allowed:
        problems.append("role pipeline needs SELECT and TRIGGER on it: make it a member of the owning role")
    problems += attributes.problems(connection, found, key, configured)
    disturbers = _disturbers(connection, oid)
    by_statement = configured.capture == "statement"
    if by_statement:
        problems += [f"{each}; capture by statement cannot follow that" for each in disturbers]
    if by_statement and kind == "p":
        problems.append("is partitioned: statements on a partition would go unseen; capture it by row")
    return Table(
        source,
        name,
        configured.type or relation,
        configured.merchant.column,
        key,
        attributes.captured(found, configured),
        strict=bool(disturbers),
        by_statement=by_statement,
    ), problems


# Of a partitioned table all partitions must be fit.
_TABLE = """
SELECT c.oid, c.relkind, bool_and(p.relpersistence = 'p'), bool_or(row_security_active(p.oid)), c.relispartition,
       EXISTS (SELECT FROM pg_inherits JOIN pg_class parent ON parent.oid = inhparent
               WHERE c.oid IN (inhrelid, inhparent) AND parent.relkind <> 'p'),
       bool_and(has_table_privilege(p.oid, 'SELECT') AND has_table_privilege(p.oid, 'TRIGGER'))
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = c.oid OR p.oid IN (SELECT relid FROM pg_partition_tree(c.oid))
WHERE n.nspname = %s AND c.relname = %s
GROUP BY c.oid
"""


def _key(connection: Connection, oid: int) -> tuple[tuple[str, ...], list[str]]:
    row = connection.execute(
        "SELECT condeferrable, ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY k(number, place)"
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = number ORDER BY place)"
        " FROM pg_constraint WHERE conrelid = %s AND contype = 'p'",
        (oid,),
    ).fetchone()
    if row is None:
        return (), ["has no primary key; add one: without it no change can be told from another row's"]
    deferrable, key = row
    if deferrable:
        return tuple(key), [
            "its primary key is deferrable: two rows may share a key for a while, and events lose order"
        ]
    return tuple(key), []


def _disturbers(connection: Connection, oid: int) -> list[str]:
    """What changes rows behind the back of the statement that fires our trigger; events then re-read their row."""
    triggers = connection.execute(
        "SELECT DISTINCT tgname FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid"
        " WHERE tgrelid IN (SELECT %(table)s UNION SELECT relid FROM pg_partition_tree(%(table)s))"
        " AND NOT tgisinternal AND tgtype & 1 = 1 AND tgtype & 66 = 0"
        " AND pronamespace IS DISTINCT FROM to_regnamespace('cdc') ORDER BY 1",
        {"table": oid},
    ).fetchall()
    cascades = connection.execute(
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = %s AND confrelid = %s"
        " AND confupdtype IN ('c', 'n', 'd')",
        (oid, oid),
    ).fetchall()
    return [f'row trigger "{name}" fires AFTER changes' for (name,) in triggers] + [
        f'foreign key "{name}" changes other rows of the same table on update' for (name,) in cascades
    ]
