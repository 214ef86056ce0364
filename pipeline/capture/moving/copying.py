"""A merchant's rows, from the tables of one source into the tables of the same type in another.

Every column that is stored travels, also those that capture excludes. One transaction takes all of it in, or nothing;
the target's triggers fire as for any other insert, so whose a row is that has a parent is noted there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from psycopg import sql

from pipeline.capture.merchants import belongs_to
from pipeline.capture.moving.ends import End, Ends
from pipeline.capture.session import Connection
from pipeline.domain.table import Table
from pipeline.errors import ConfigurationError, PermanentError
from pipeline.failpoints import passes

_ROW = sql.SQL("t")
Advance = Callable[[str, int, int], None]
"""(table, rows copied, rows to copy), of all tables together."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a table holds of a merchant: how many rows, and a checksum over all their columns in no order."""

    rows: int
    checksum: str


Contents = Mapping[str, Content]
"""By document type."""


def contents(connection: Connection, tables: Iterable[Table], merchant: str) -> Contents:
    """What is there of the merchant, under one snapshot if the caller's transaction has one."""
    return {table.type: _content(connection, table, merchant) for table in tables}


def counts(found: Contents) -> dict[str, int]:
    """Rows by type."""
    return {type_: content.rows for type_, content in found.items()}


def in_order(end: End) -> list[Table]:
    """The source's tables, each after those that it refers to; ConfigurationError when they refer to each other."""
    by_name = {table.name: table for table in end.tables.values()}
    references: dict[str, set[str]] = {name: set() for name in by_name}
    for child, parent in end.connection.execute(_REFERENCES, (list(by_name), list(by_name))):
        references[child].add(parent)
    try:
        return [by_name[name] for name in TopologicalSorter(references).static_order()]
    except CycleError as error:
        circle = ", ".join(sorted(set(error.args[1])))
        raise ConfigurationError(
            (
                f"source {end.name}: {circle} refer to each other; copy with a tool of your own and say --copied",
            )
        ) from error


# A deferred one is checked at the end of the transaction.
_REFERENCES = """
SELECT DISTINCT cn.nspname || '.' || c.relname, pn.nspname || '.' || p.relname FROM pg_constraint f
JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE f.contype = 'f' AND NOT f.condeferrable AND c.oid <> p.oid
  AND cn.nspname || '.' || c.relname = ANY (%s) AND pn.nspname || '.' || p.relname = ANY (%s)
"""


def copy(ends: Ends, merchant: str, *, mine: bool, claim: Callable[[], None], advance: Advance) -> Contents:
    """Make the target hold what the source holds of the merchant, who must be away there; what that is.

    What the target has already is taken away first if it is `mine`, of an earlier attempt; otherwise PermanentError,
    unless it is the same. `claim` is called before the first row, once it is sure that nobody else's are there.
    """
    tables = [table for table in in_order(ends.target) if table.type in ends.source.tables]
    with ends.source.connection.transaction():
        ends.source.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        wanted = contents(ends.source.connection, ends.source.tables.values(), merchant)
        found = contents(ends.target.connection, tables, merchant)
        if found == wanted:
            return wanted
        if not mine and any(content.rows for content in found.values()):
            raise PermanentError(
                f"{ends.target.name} holds other rows of merchant {merchant}: {_listed(counts(found))}",
                hint="it is away there, so deleting them is told by nobody; then run this again",
            )
        claim()
        with ends.target.connection.transaction():
            _replace(ends, tables, merchant, wanted, advance)
            passes("move.copying")
    return wanted


def _replace(ends: Ends, tables: Sequence[Table], merchant: str, wanted: Contents, advance: Advance) -> None:
    target, total, done = ends.target.connection, sum(each.rows for each in wanted.values()), 0
    target.execute("SET CONSTRAINTS ALL DEFERRED")
    _delete(target, tables, merchant)
    for table in tables:
        if wanted[table.type].rows:
            done = _copy(ends, ends.source.tables[table.type], table, merchant, done, total, advance)
    written = contents(target, tables, merchant)
    altered = sorted(type_ for type_, content in wanted.items() if written[type_] != content)
    if altered:
        raise PermanentError(
            f"{ends.target.name} does not keep the rows of {', '.join(altered)} as they are: has it triggers of its own?",
            hint="copy with a tool of your own and say --copied",
        )


def _copy(
    ends: Ends, source: Table, target: Table, merchant: str, done: int, total: int, advance: Advance
) -> int:
    columns = sql.SQL(", ").join(map(sql.Identifier, stored_columns(ends.target.connection, target)))
    out = sql.SQL("COPY (SELECT {} FROM {} t WHERE {}) TO STDOUT").format(
        columns, _relation(source), belongs_to(source, _ROW, merchant)
    )
    into = sql.SQL("COPY {} ({}) FROM STDIN").format(_relation(target), columns)
    with (
        ends.source.connection.cursor().copy(out) as reading,
        ends.target.connection.cursor().copy(into) as writing,
    ):
        for block in reading:
            writing.write(block)
            done += bytes(block).count(b"\n")  # inside of values it is written \n
            advance(target.name, done, total)
    return done


def delete(end: End, merchant: str) -> None:
    """Take the merchant's rows out of the source's tables, in one transaction."""
    with end.connection.transaction():
        end.connection.execute("SET CONSTRAINTS ALL DEFERRED")
        _delete(end.connection, in_order(end), merchant)


def _delete(connection: Connection, tables: Sequence[Table], merchant: str) -> None:
    for table in reversed(tables):
        connection.execute(_deletion(table, merchant))


def deletions(end: End, merchant: str) -> list[str]:
    """The statements by which a person deletes the merchant's rows."""
    return [_deletion(table, merchant).as_string(end.connection) for table in reversed(in_order(end))]


def _deletion(table: Table, merchant: str) -> sql.Composed:
    return sql.SQL("DELETE FROM {} t WHERE {}").format(_relation(table), belongs_to(table, _ROW, merchant))


def has_rows(connection: Connection, tables: Iterable[Table], merchant: str) -> bool:
    """True when any table has a row of the merchant."""
    for table in tables:
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} t WHERE {})").format(
            _relation(table), belongs_to(table, _ROW, merchant)
        )
        row = connection.execute(query).fetchone()
        if row is not None and row[0]:
            return True
    return False


def stored_columns(connection: Connection, table: Table) -> dict[str, str]:
    """All columns of the table that hold something of their own, with their types: generated ones follow from others."""
    schema, name = table.name.split(".", 1)
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
        " JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s"
        " AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attname",
        (schema, name),
    )
    return dict(rows.fetchall())


def _content(connection: Connection, table: Table, merchant: str) -> Content:
    columns = [sql.SQL("t.{}").format(sql.Identifier(name)) for name in stored_columns(connection, table)]
    query = sql.SQL(
        "SELECT count(*), coalesce(sum(('x' || substr(md5(ROW({})::text), 1, 15))::bit(60)::bigint), 0)::text"
        " FROM {} t WHERE {}"
    ).format(sql.SQL(", ").join(columns), _relation(table), belongs_to(table, _ROW, merchant))
    row = connection.execute(query).fetchone()
    assert row is not None  # an aggregate yields one row
    return Content(*row)


def _relation(table: Table) -> sql.Identifier:
    return sql.Identifier(*table.name.split(".", 1))


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{rows:,} of {type_}" for type_, rows in found.items() if rows)
