"""Whose row is it: the merchant of a row, as SQL."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from pipeline.capture.image import INTEGERS, base, column_of, text_of
from pipeline.domain.table import Column, Parent, Table

PARENT = sql.SQL("parent")
WELL_FORMED: LiteralString = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def merchant_expression(table: Table, record: sql.Composable) -> sql.Composed:
    """The row's merchant; a row without one, or with something that is no merchant id, belongs to ``_<source>``."""
    if table.parent is not None:
        found = sql.SQL("(SELECT {} {})").format(*parents_merchant(table, table.parent, record))
        return sql.SQL("coalesce({}, {})").format(found, nobody(table))
    if table.merchant_column is None:
        return sql.Composed([nobody(table)])
    return merchant_in(table.column(table.merchant_column), record, nobody(table))


def merchant_in(column: Column, record: sql.Composable, otherwise: sql.Composable) -> sql.Composed:
    """The merchant that a column holds."""
    kind, value = base(column), column_of(record, column.name)
    if kind in INTEGERS:
        return sql.SQL("CASE WHEN {0} >= 0 THEN {0}::text ELSE {1} END").format(value, otherwise)
    text = text_of(column, record)
    if kind == "uuid":
        return sql.SQL("coalesce({}, {})").format(text, otherwise)
    return sql.SQL('CASE WHEN {0} COLLATE "C" ~ {2} THEN {0} ELSE {1} END').format(
        text, otherwise, sql.Literal(WELL_FORMED)
    )


def parents_merchant(
    table: Table, parent: Parent, record: sql.Composable
) -> tuple[sql.Composed, sql.Composed]:
    """The merchant of the row's parent as an expression, and the FROM and WHERE it stands in; no row without a parent."""
    source = parent_of(parent, column_of(record, parent.on))
    return merchant_in(parent.merchant, PARENT, nobody(table)), source


def parent_of(parent: Parent, key: sql.Composable) -> sql.Composed:
    """FROM and WHERE of the parent with this key."""
    return sql.SQL("FROM {} parent WHERE {} = {}").format(
        sql.Identifier(*parent.table.split(".", 1)), column_of(PARENT, parent.key.name), key
    )


def belongs_to(table: Table, record: sql.Composable, merchant: str) -> sql.Composed:
    """The condition that a row is this merchant's, in a form for which an index on the column can be used.

    `merchant` is a merchant's id, not ``_<source>``.
    """
    parent = table.parent
    if parent is None:
        if table.merchant_column is None:
            return sql.SQL("{}").format(sql.Literal(False))
        return _holds(table.column(table.merchant_column), record, merchant)
    return sql.SQL("{} IN (SELECT {} FROM {} parent WHERE {})").format(
        column_of(record, parent.on),
        column_of(PARENT, parent.key.name),
        sql.Identifier(*parent.table.split(".", 1)),
        _holds(parent.merchant, PARENT, merchant),
    )


def _holds(column: Column, record: sql.Composable, merchant: str) -> sql.Composed:
    """`merchant_in` tells the same; the comparison of the column itself is what an index can answer."""
    exact = sql.SQL("{} = {}").format(merchant_in(column, record, sql.SQL("NULL")), sql.Literal(merchant))
    kind, value = base(column), column_of(record, column.name)
    if kind in INTEGERS and merchant.isdecimal() and len(merchant) < 19:
        return sql.SQL("{} = {}::bigint AND {}").format(value, sql.Literal(merchant), exact)
    if kind in ("text", "character varying") and not column.stored:
        return sql.SQL("{} = {} AND {}").format(value, sql.Literal(merchant), exact)
    return exact


def nobody(table: Table) -> sql.Literal:
    """Who owns the rows of this source that belong to no merchant."""
    return sql.Literal(f"_{table.source}")
