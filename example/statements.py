"""Runs transactions: the SQL of their operations.

One text per table and shape, whatever the number of rows, so that the server plans it once.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import LiteralString

import msgspec
import psycopg
from psycopg import IsolationLevel, sql

from .operations import Delete, Insert, Operation, Release, RollbackTo, Savepoint, Transaction, Update, Upsert
from .tables import TABLES, Key, Row


def perform(session: psycopg.Connection, transaction: Transaction, pause: Callable[[], object]) -> int:
    """Runs a transaction to its end, calling `pause` in the middle of it, or before it where it is not to be held.

    Returns how many rows the statements should have found and did not. After an error the session is clean again.
    """
    level = IsolationLevel.REPEATABLE_READ if transaction.repeatable_read else IsolationLevel.READ_COMMITTED
    half = len(transaction.operations) // 2 if transaction.hold else 0
    try:
        session.isolation_level = level
        done = [session.execute(*statement(operation)) for operation in transaction.operations[:half]]
        pause()
        with session.pipeline():
            done += [session.execute(*statement(operation)) for operation in transaction.operations[half:]]
            session.commit() if transaction.commits else session.rollback()
    except psycopg.Error:
        session.rollback()
        raise
    return sum(map(_missed, transaction.operations, done))


def _missed(operation: Operation, cursor: psycopg.Cursor) -> int:
    match operation:
        case Insert(rows=found) | Upsert(rows=found) | Update(keys=found) | Delete(keys=found):
            return len(found) - cursor.rowcount
        case _:
            return 0


def statement(operation: Operation) -> tuple[bytes, Sequence[object]]:
    """The statement, with %s for parameters, and the parameters."""
    match operation:
        case Insert(table, rows):
            return _insert(table, tuple(rows[0])), [_json(rows)]
        case Upsert(table, rows):
            return _upsert(table, tuple(rows[0])), [_json(rows)]
        case Update(table, keys, columns):
            return _update(table, tuple(columns)), [*_values(columns), *_arrays(keys)]
        case Delete(table, keys):
            return _delete(table), _arrays(keys)
        case Savepoint(name):
            return _named("savepoint {}", name), []
        case Release(name):
            return _named("release savepoint {}", name), []
        case RollbackTo(name):
            return _named("rollback to savepoint {}", name), []


def _values(columns: Row) -> Iterable[object]:
    return (_json(value) if isinstance(value, dict) else value for value in columns.values())


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _arrays(keys: Sequence[Key]) -> list[list[int | str]]:
    return [list(values) for values in zip(*keys, strict=True)]


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


@cache
def _insert(table: str, columns: tuple[str, ...]) -> bytes:
    """Rows come as one JSON array of objects: one parameter however many they are."""
    text = sql.SQL("insert into {0} ({1}) select {1} from jsonb_populate_recordset(null::{0}, %s)")
    return text.format(sql.Identifier(table), _names(columns)).as_bytes()


@cache
def _upsert(table: str, columns: tuple[str, ...]) -> bytes:
    key = TABLES[table].key
    others = [column for column in columns if column not in key]
    assigned = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in others)
    text = sql.SQL(" on conflict ({}) do update set {}").format(_names(key), assigned)
    return _insert(table, columns) + text.as_bytes()


@cache
def _update(table: str, columns: tuple[str, ...]) -> bytes:
    assigned = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in columns)
    return (
        sql.SQL("update {} set {} where {}").format(sql.Identifier(table), assigned, _among(table)).as_bytes()
    )


@cache
def _delete(table: str) -> bytes:
    return sql.SQL("delete from {} where {}").format(sql.Identifier(table), _among(table)).as_bytes()


@cache
def _named(text: LiteralString, savepoint: str) -> bytes:
    return sql.SQL(text).format(sql.Identifier(savepoint)).as_bytes()


def _among(table: str) -> sql.Composed:
    """The condition "the key is among these", one array per key column."""
    key = TABLES[table].key
    array = sql.SQL("%s::uuid[]" if table == "applications" else "%s::bigint[]")
    return sql.SQL("({}) in (select * from unnest({}))").format(
        _names(key), sql.SQL(", ").join([array] * len(key))
    )
