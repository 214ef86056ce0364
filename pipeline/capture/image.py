"""A row's image: one expression that makes its JSON for the trigger, the snapshot and verify alike.

Column rules are applied in it, so what they hide never leaves the database. A value whose text is beyond `LARGEST`
becomes null, and its size and hash stand in the ``cut`` that follows the image: a function of the row alone, so that
a change and a snapshot of the same row are cut alike.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import LiteralString

from psycopg import sql

from pipeline.domain.table import Column, Table

NEW, OLD = sql.SQL("new"), sql.SQL("old")
INTEGERS = frozenset({"smallint", "integer", "bigint"})
TEXTS = "text[]"
LARGEST = 1_000_000
"""Bytes of one value's text: what is larger cannot be part of a record of 1 MiB."""
LARGEST_ROW = 2 * LARGEST
"""Bytes of all of a row's large texts together: beyond it each is cut that has more than its share."""
_LEAST_SHARE = 16_384
# PostgreSQL compresses a value to 1/255 of its size at best: one that is stored in fewer bytes than a 256th of a limit is
# below it, wherever it is stored.
_COMPRESSION = 256
_SEPARATOR = "\x1e"  # no JSON has it
_ARGUMENTS = 90  # PostgreSQL's functions take a hundred

# The type that each column has inside the row image: row_to_json writes json as it is and text as a string.
IMAGE_TYPES: dict[str, LiteralString] = {
    "bigint": "json",
    "numeric": "text",
    "character": "text",
    "boolean": "boolean",
    "smallint": "smallint",
    "integer": "integer",
    "real": "real",
    "double precision": "double precision",
    "text": "text",
    "character varying": "text",
    "uuid": "uuid",
    "date": "date",
    "timestamp without time zone": "timestamp without time zone",
    "timestamp with time zone": "timestamp with time zone",
    "time without time zone": "time without time zone",
    "json": "json",
    "jsonb": "jsonb",
    "bytea": "bytea",
    "inet": "inet",
    TEXTS: "text[]",
}
_RULES: dict[str, LiteralString] = {
    "hash": "cdc.hash({0})",
    "mask": "CASE WHEN {0} IS NOT NULL THEN '***' END",
    "last4": "CASE WHEN length({0}) >= 8 THEN '***' || right({0}, 4) WHEN {0} IS NOT NULL THEN '***' END",
}
_MODIFIER = re.compile(r"\(.*?\)")


def row_expression(table: Table, record: sql.Composable) -> sql.Composed:
    """The row's image as JSON text; `record` names the row: ``new``, ``old`` or a table's alias. See `split`."""
    large, share = _large(table)
    plain = plain_expression(table, record)
    if not large:
        return plain
    sizes = [_size(column, record, share) for column in large]
    largest = sql.SQL("greatest({})").format(sql.SQL(", ").join(sizes))
    whole = sql.SQL("CASE WHEN {} > {} THEN {} ELSE {} END").format(
        largest, sql.Literal(LARGEST), _cut_beyond(table, record, LARGEST), plain
    )
    if share == LARGEST:
        return whole
    # What follows the first comparison is for few rows, however much there is of it.
    return sql.SQL(
        "CASE WHEN {largest} > {share} THEN CASE WHEN {sum} > {row} THEN {shares} ELSE {whole} END ELSE {plain} END"
    ).format(
        largest=largest,
        share=sql.Literal(share),
        sum=sql.SQL(" + ").join(sql.SQL("coalesce({}, 0)::bigint").format(size) for size in sizes),
        row=sql.Literal(LARGEST_ROW),
        shares=_cut_beyond(table, record, share),
        whole=whole,
        plain=plain,
    )


def plain_expression(table: Table, record: sql.Composable) -> sql.Composed:
    """The image of a row of which nothing is cut."""
    return _object(table, [_field(column, record) for column in table.columns])


def may_cut(table: Table, record: sql.Composable) -> sql.Composed | None:
    """False of a row of which nothing is cut; None when no column can be so large."""
    large, share = _large(table)
    sizes = sql.SQL(", ").join(_size(column, record, share) for column in large)
    return sql.SQL("greatest({}) > {}").format(sizes, sql.Literal(share)) if large else None


def _large(table: Table) -> tuple[list[Column], int]:
    """The columns whose values may be large, and the share of `LARGEST_ROW` that each has for sure."""
    large = [column for column in table.columns if _may_be_large(column)]
    return large, min(LARGEST, max(LARGEST_ROW // max(1, len(large)), _LEAST_SHARE))


def _cut_beyond(table: Table, record: sql.Composable, limit: int) -> sql.Composed:
    """The image without the values whose text has more bytes than `limit`, and what is cut."""
    large, share = _large(table)
    names = {column.name for column in large}
    fitting = [
        _fitting(column, record, _size(column, record, share), limit)
        if column.name in names
        else _field(column, record)
        for column in table.columns
    ]
    return sql.SQL("{} || {} || '{{' || {} || '}}'").format(
        _object(table, fitting),
        sql.Literal(_SEPARATOR),
        _joined([_cut(column, record, _size(column, record, share), limit) for column in large]),
    )


def split(text: str) -> tuple[str, str | None]:
    """The image and its cut, both JSON, of a text that `row_expression` made; None when nothing is cut."""
    image, separator, cut = text.partition(_SEPARATOR)
    return image, cut if separator else None


def key_expression(table: Table, record: sql.Composable) -> sql.Composed:
    """The primary key as compact JSON text, columns in the key's order."""
    columns = {column.name: column for column in table.columns}
    parts: list[sql.Composable] = []
    for place, name in enumerate(table.key):
        label = ("{" if place == 0 else ",") + _json_string(name) + ":"
        parts += [sql.Literal(label), _key_value(columns[name], record)]
    return sql.SQL(" || ").join([*parts, sql.Literal("}")])


def image_columns(table: Table) -> sql.Composed:
    """The columns of the table's type in schema cdc, which names and types the image's fields."""
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(IMAGE_TYPES[base(column)]))
        for column in table.columns
    ]
    return sql.SQL(", ").join(columns)


def object_name(table: Table) -> str:
    """The name of the table's type and function in schema cdc: readable, unique, within PostgreSQL's 63 bytes."""
    return name_in_cdc(table.name)


def name_in_cdc(name: str) -> str:
    """A name for an object of schema cdc that belongs to the table `name`."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    readable = name.encode()[:50].decode(errors="ignore").replace(".", "_")
    return f"{readable}_{digest}"


def base(column: Column) -> str:
    """The column's type without its modifier."""
    return unmodified(column.type)


def unmodified(type_: str) -> str:
    """A type's name without its modifier: ``character varying`` of ``character varying(20)``."""
    return _MODIFIER.sub("", type_)


def column_of(record: sql.Composable, name: str) -> sql.Composed:
    """A column of the row that `record` names."""
    return sql.SQL("{}.{}").format(record, sql.Identifier(name))


def text_of(column: Column, record: sql.Composable) -> sql.Composed:
    """The column's value as text.

    Types of the application's own are written by their output function: a cast could be one that their owner made,
    and would run with the rights of ours. IS NULL asks a composite for its fields; num_nulls does not.
    """
    value = column_of(record, column.name)
    if column.stored and not column.stored.startswith("character"):  # as everywhere, without a char's padding
        return sql.SQL("CASE num_nulls({0}) WHEN 0 THEN concat({0}) END").format(value)
    return sql.SQL("{}::text").format(value)


def _object(table: Table, fields: list[sql.Composed]) -> sql.Composed:
    return sql.SQL("row_to_json(ROW({})::cdc.{})::text").format(
        sql.SQL(", ").join(fields), sql.Identifier(object_name(table))
    )


def _field(column: Column, record: sql.Composable) -> sql.Composed:
    value = column_of(record, column.name)
    if column.rule is not None:
        return sql.SQL(_RULES[column.rule]).format(text_of(column, record))
    if column.stored == "money":
        return sql.SQL("{}::numeric::text").format(value)
    if base(column) == TEXTS:
        return sql.SQL("{}::text[]").format(value)
    if base(column) == "bigint":
        return sql.SQL("{}::json").format(_safe_integer(value))
    if base(column) in ("numeric", "character"):
        return sql.SQL("{}::text").format(value)
    return text_of(column, record) if column.stored else value


def _key_value(column: Column, record: sql.Composable) -> sql.Composed:
    value = column_of(record, column.name)
    if base(column) == "bigint":
        return _safe_integer(value)
    if base(column) in INTEGERS or base(column) == "boolean":
        return sql.SQL("{}::text").format(value)
    return sql.SQL("to_json({})::text").format(text_of(column, record))


def _may_be_large(column: Column) -> bool:
    if column.rule is not None or column.stored == "money":
        return False
    limited = re.search(r"\((\d+)\)", column.type)
    if limited and base(column) in ("character varying", "character"):
        return 4 * int(limited[1]) > LARGEST
    return base(column) in ("text", "character varying", "character", "json", "jsonb", "bytea", TEXTS)


def _size(column: Column, record: sql.Composable, share: int) -> sql.Composed:
    """Bytes of the value's text; of a text or bytea without reading it, of others only when they may exceed `share`."""
    value = column_of(record, column.name)
    if not column.stored and base(column) in ("text", "character varying", "bytea"):
        return sql.SQL("octet_length({})").format(value)
    return sql.SQL("CASE WHEN pg_column_size({}) > {} THEN octet_length({}) END").format(
        value, sql.Literal(share // _COMPRESSION), text_of(column, record)
    )


def _fitting(column: Column, record: sql.Composable, size: sql.Composable, limit: int) -> sql.Composed:
    return sql.SQL("CASE WHEN coalesce({}, 0) <= {} THEN {} END").format(
        size, sql.Literal(limit), _field(column, record)
    )


def _cut(column: Column, record: sql.Composable, size: sql.Composable, limit: int) -> sql.Composed:
    """One entry of the cut, NULL when the column is whole."""
    if base(column) == "bytea" and not column.stored:
        content = column_of(record, column.name)
    else:
        content = sql.SQL("convert_to({}, 'UTF8')").format(text_of(column, record))
    return sql.SQL(
        'CASE WHEN {size} > {limit} THEN {name} || \'{{"bytes":\' || {size} || \',"sha256":"\''
        " || encode(sha256({content}), 'hex') || '\"}}' END"
    ).format(
        size=size,
        limit=sql.Literal(limit),
        name=sql.Literal(_json_string(column.name) + ":"),
        content=content,
    )


def _joined(entries: list[sql.Composed]) -> sql.Composed:
    """Entries that are not NULL, with commas in between."""
    groups = [entries[start : start + _ARGUMENTS] for start in range(0, len(entries), _ARGUMENTS)]
    joined = [sql.SQL("concat_ws(',', {})").format(sql.SQL(", ").join(group)) for group in groups]
    return (
        joined[0]
        if len(joined) == 1
        else _joined([sql.SQL("nullif({}, '')").format(each) for each in joined])
    )


def _safe_integer(value: sql.Composable) -> sql.Composed:
    """A number up to 2^53, a string beyond: JSON readers round larger numbers. NULL stays NULL."""
    return sql.SQL(
        "CASE WHEN {0} BETWEEN -9007199254740992 AND 9007199254740992 THEN {0}::text"
        " ELSE '\"' || {0}::text || '\"' END"
    ).format(value)


def _json_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def may_nest(table: Table) -> bool:
    """True when a value of it can have levels below the row's own."""
    return any(base(column) in ("json", "jsonb") and column.rule is None for column in table.columns)
