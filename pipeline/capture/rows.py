"""Rows of captured tables as they stand in the source: for snapshots in chunks, for verify as a stream.

Those of merchants that are away are not the source's to show, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString, NamedTuple

from psycopg import sql

from pipeline.capture import away
from pipeline.capture.image import key_expression, row_expression, text_of
from pipeline.capture.merchants import merchant_expression
from pipeline.capture.session import Connection
from pipeline.domain.routing import Key, KeyValue
from pipeline.domain.table import Table

CHUNK_ROWS, CHUNK_BYTES = 5_000, 8 * 1024 * 1024
_COUNTED_COST = 5_000  # the planner's: about 40 MB, ten milliseconds
_ROW = sql.SQL("t")


class SourceRow(NamedTuple):
    """One living row: its merchant, its key and its image (see `image.split`), exactly as the trigger would write them."""

    merchant: str
    key: str
    image: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows in key order; ``position`` is the last one's key, as text; ``final`` when no row lies behind it."""

    rows: Sequence[SourceRow]
    position: tuple[str, ...] | None
    final: bool


def read_rows(connection: Connection, table: Table, merchant: str | None = None) -> Iterator[SourceRow]:
    """Every row, or one merchant's, as a stream in no order.

    The session is one of `pipeline.capture.session`, inside the caller's REPEATABLE READ transaction; nothing else can
    run on it until the iterator is exhausted or closed.
    """
    conditions = _at_home(connection, table)
    if merchant is not None:
        conditions.append(_of_merchant(table, merchant))
    query = _select(table) + _where(conditions)
    with connection.cursor() as cursor:
        for row in cursor.stream(query, size=100):
            yield SourceRow._make(row)


def read_chunk(
    connection: Connection,
    table: Table,
    after: tuple[str, ...] | None,
    *,
    limit: int | None = None,
    merchant: str | None = None,
) -> Chunk:
    """The rows behind key `after`: at most `limit` and 5,000, and no more once they exceed 8 MB.

    With a `merchant` those of his among the next `limit` rows: however rare his rows are, no chunk reads the whole
    table. The caller's transaction must be REPEATABLE READ then.
    """
    limit = min(limit or CHUNK_ROWS, CHUNK_ROWS)
    conditions = [*_bound(table, ">", after), *_at_home(connection, table)]
    query, end = _chunk_query(table, conditions, limit), None
    if merchant is not None:
        end = connection.execute(_end_query(table, after, limit)).fetchone()
        query = _merchants_query(
            table, [*conditions, *_bound(table, "<=", end), _of_merchant(table, merchant)]
        )
    rows: list[SourceRow] = []
    size = 0
    position = after
    with connection.cursor() as cursor:
        for row in cursor.stream(query, size=100):
            rows.append(SourceRow._make(row[:3]))
            position = row[3:]
            size += len(row[2])
            if size > CHUNK_BYTES:
                return Chunk(rows, position, final=False)
    if merchant is not None:
        return Chunk(rows, end or position, final=end is None)
    return Chunk(rows, position, final=len(rows) < limit)


def read_row(connection: Connection, table: Table, key: Key) -> SourceRow | None:
    """The living row with this key, or None."""
    same = [
        sql.SQL("t.{} = {}::{}").format(
            sql.Identifier(name),
            sql.Literal(_text_of_key(key[name])),
            sql.SQL(table.column(name).stored or table.column(name).type),
        )
        for name in table.key
    ]
    row = connection.execute(_select(table) + _where([*same, *_at_home(connection, table)])).fetchone()
    return None if row is None else SourceRow._make(row)


def estimate(connection: Connection, table: Table, merchant: str | None = None) -> int:
    """How many rows there are, or of one merchant: counted while that is cheap, else as the planner thinks."""
    rows = sql.SQL("FROM {} t").format(_relation(table))
    if merchant is not None:
        rows += sql.SQL(" WHERE ") + _of_merchant(table, merchant)
    explained = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) SELECT ") + rows).fetchone()
    assert explained is not None  # a plan is one row
    plan = explained[0][0]["Plan"]
    if plan["Total Cost"] > _COUNTED_COST:
        return int(plan["Plan Rows"])
    counted = connection.execute(sql.SQL("SELECT count(*) ") + rows).fetchone()
    assert counted is not None  # an aggregate yields one row
    return int(counted[0])


def notice_ids(connection: Connection, table: Table) -> list[int]:
    """The notices that a snapshot begun now will have answered."""
    rows = connection.execute("SELECT id FROM cdc.notices WHERE table_name = %s", (table.name,))
    return [row[0] for row in rows]


def clear_notices(connection: Connection, ids: Sequence[int]) -> None:
    """Take answered notices away."""
    connection.execute("DELETE FROM cdc.notices WHERE id = ANY(%s)", (list(ids),))


def locked_by(connection: Connection, table: Table) -> str | None:
    """Who keeps readers out of the table, in words; None when nobody does."""
    name = sql.Identifier(*table.name.split(".", 1)).as_string(connection)
    row = connection.execute(
        "WITH RECURSIVE part AS (SELECT to_regclass(%s)::oid AS oid"
        " UNION SELECT inhrelid FROM pg_inherits JOIN part ON inhparent = part.oid)"
        " SELECT coalesce('process ' || pid, 'a prepared transaction') FROM pg_locks"
        " WHERE relation IN (SELECT oid FROM part) AND granted AND mode = 'AccessExclusiveLock'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1",
        (name,),
    ).fetchone()
    return None if row is None else str(row[0])


def oldest_writer(connection: Connection) -> str:
    """The oldest transaction that still runs, in words: what a mark may be waiting for."""
    row = connection.execute(
        "SELECT coalesce((SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts"
        " ORDER BY age(transaction) DESC LIMIT 1), (SELECT 'the transaction of process ' || pid || ' of ' || usename"
        " FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
        " ORDER BY age(backend_xid) DESC LIMIT 1), 'an older transaction')"
    ).fetchone()
    return str(row[0]) if row else ""


def _text_of_key(value: KeyValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _chunk_query(table: Table, conditions: Sequence[sql.Composed], limit: int) -> sql.Composed:
    query = _select(table, *_key_texts(table)) + _where(conditions)
    return query + sql.SQL(" ORDER BY {} LIMIT {}").format(_key(table), sql.Literal(limit))


def _end_query(table: Table, after: tuple[str, ...] | None, limit: int) -> sql.Composed:
    """The key of the last of the next `limit` rows; no row when there are fewer."""
    query = sql.SQL("SELECT {} FROM {} t").format(sql.SQL(", ").join(_key_texts(table)), _relation(table))
    query += _where(_bound(table, ">", after))
    return query + sql.SQL(" ORDER BY {} OFFSET {} LIMIT 1").format(_key(table), sql.Literal(limit - 1))


def _merchants_query(table: Table, conditions: Sequence[sql.Composed]) -> sql.Composed:
    query = _select(table, *_key_texts(table)) + _where(conditions)
    return query + sql.SQL(" ORDER BY {}").format(_key(table))


def _key(table: Table) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in table.key)


def _key_texts(table: Table) -> list[sql.Composed]:
    return [text_of(table.column(name), _ROW) for name in table.key]


def _bound(table: Table, comparison: LiteralString, key: tuple[str, ...] | None) -> list[sql.Composed]:
    """Keys stand in the query as literals: a name may have a %, which would be taken for a parameter's."""
    if key is None:
        return []
    values = [
        sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(column.stored or column.type))
        for column, text in zip(map(table.column, table.key), key, strict=True)
    ]
    compare = sql.SQL("ROW({}) {} ROW({})")
    return [compare.format(_key(table), sql.SQL(comparison), sql.SQL(", ").join(values))]


def _of_merchant(table: Table, merchant: str) -> sql.Composed:
    return sql.SQL("{} = {}").format(merchant_expression(table, _ROW), sql.Literal(merchant))


def _select(table: Table, *more: sql.Composable) -> sql.Composed:
    expressions = [make(table, _ROW) for make in (merchant_expression, key_expression, row_expression)]
    return sql.SQL("SELECT {} FROM {} t").format(sql.SQL(", ").join([*expressions, *more]), _relation(table))


def _at_home(connection: Connection, table: Table) -> list[sql.Composed]:
    """The condition that leaves out who is away; none while nobody is, so that nothing is paid for it."""
    absent = away.merchants(connection) if table.owned else []
    if not absent:
        return []
    return [sql.SQL("{} <> ALL ({}::text[])").format(merchant_expression(table, _ROW), sql.Literal(absent))]


def _where(conditions: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(" WHERE " if conditions else "") + sql.SQL(" AND ").join(conditions)


def _relation(table: Table) -> sql.Identifier:
    return sql.Identifier(*table.name.split(".", 1))
