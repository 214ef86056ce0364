"""The SQL that captures one table: its row image, and the trigger that writes each change into the queue.

One expression makes a row's JSON for the trigger, the snapshot and verify alike, so they cannot disagree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from pipeline.capture.catalog import INTEGERS, TRIGGER, TRUNCATE_TRIGGER
from pipeline.capture.session import TEXT_SETTINGS
from pipeline.domain.table import Column, Table

NEW, OLD = sql.SQL("new"), sql.SQL("old")

# The type that each column has inside the row image: row_to_json writes json as it is and text as a string.
_IMAGE_TYPES: dict[str, LiteralString] = {
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
}
_MODIFIER = re.compile(r"\(.*?\)")


@dataclass(frozen=True, slots=True)
class QueueNames:
    """Where PgQ keeps a queue: its id, the prefix of its event tables, its event sequence."""

    id: int
    events: str
    sequence: str


def row_expression(table: Table, record: sql.Composable) -> sql.Composed:
    """The row's image as JSON text; `record` names the row: ``new``, ``old`` or a table's alias."""
    fields = sql.SQL(", ").join(_field(column, record) for column in table.columns)
    return sql.SQL("row_to_json(ROW({})::cdc.{})::text").format(fields, sql.Identifier(object_name(table)))


def key_expression(table: Table, record: sql.Composable) -> sql.Composed:
    """The primary key as compact JSON text, columns in the key's order."""
    types = {column.name: _base(column) for column in table.columns}
    parts: list[sql.Composable] = []
    for place, name in enumerate(table.key):
        label = ("{" if place == 0 else ",") + _json_string(name) + ":"
        parts += [sql.Literal(label), _key_value(types[name], _column(record, name))]
    return sql.SQL(" || ").join([*parts, sql.Literal("}")])


def merchant_expression(table: Table, record: sql.Composable) -> sql.Composed:
    """The row's merchant; a row without one, or with something that is no merchant id, belongs to ``_<source>``."""
    kind = next(_base(column) for column in table.columns if column.name == table.merchant_column)
    value, nobody = _column(record, table.merchant_column), sql.Literal(f"_{table.source}")
    if kind in INTEGERS:
        template = sql.SQL("CASE WHEN {0} >= 0 THEN {0}::text ELSE {1} END")
    elif kind == "uuid":
        template = sql.SQL("coalesce({0}::text, {1})")
    else:
        template = sql.SQL(
            """CASE WHEN {0}::text COLLATE "C" ~ '^[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}$' THEN {0}::text ELSE {1} END"""
        )
    return template.format(value, nobody)


def object_name(table: Table) -> str:
    """The name of the table's type and function in schema cdc: readable, unique, within PostgreSQL's 63 bytes."""
    digest = hashlib.sha256(table.name.encode()).hexdigest()[:8]
    readable = table.name.encode()[:50].decode(errors="ignore").replace(".", "_")
    return f"{readable}_{digest}"


def statements(table: Table, queue: QueueNames) -> Iterable[sql.Composed]:
    """What captures `table` from now on, replacing what an earlier install left of it."""
    name = sql.Identifier(object_name(table))
    relation = sql.Identifier(*table.name.split(".", 1))
    yield sql.SQL("DROP TYPE IF EXISTS cdc.{}").format(name)
    yield sql.SQL("CREATE TYPE cdc.{} AS ({})").format(name, _image_columns(table))
    yield _function(name, _body(table, queue))
    yield sql.SQL(
        "CREATE OR REPLACE TRIGGER {} AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION cdc.{}()"
    ).format(sql.Identifier(TRIGGER), relation, name)
    yield sql.SQL(
        "CREATE OR REPLACE TRIGGER {} AFTER TRUNCATE ON {} FOR EACH STATEMENT EXECUTE FUNCTION cdc.truncated()"
    ).format(sql.Identifier(TRUNCATE_TRIGGER), relation)


def truncate_function() -> sql.Composed:
    """The statement trigger of every captured table: TRUNCATE succeeds and leaves a notice."""
    body = sql.SQL("""
BEGIN
  INSERT INTO cdc.notices (table_name, reason) VALUES (tg_table_schema || '.' || tg_table_name, 'truncated');
  RETURN NULL;
END
""")
    return _function(sql.Identifier("truncated"), sql.Composed([body]))


def _function(name: sql.Identifier, body: sql.Composed) -> sql.Composed:
    """SECURITY DEFINER, because application roles have no rights on the queue; search_path fixed, because of that."""
    settings = sql.SQL(" ").join(
        sql.SQL("SET {} = {}").format(sql.SQL(setting), sql.Literal(value))
        for setting, value in TEXT_SETTINGS.items()
    )
    return sql.SQL(
        "CREATE OR REPLACE FUNCTION cdc.{}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
        " SET search_path = pg_catalog, pg_temp {} AS {}"
    ).format(name, settings, sql.Literal(body.as_string(None)))


_BODY = sql.SQL("""
#variable_conflict use_variable
DECLARE
  v_slot integer;
  v_ev bigint;
  v_op text;
  v_merchant text;
  v_key text;
  v_after text;
  v_before text;
  v_old_merchant text;
  v_old_key text;
  v_gone text;
  v_moved boolean := false;
  v_failure text;
BEGIN
  -- Nothing is written in this block: a write in it would take a transaction id for every row.
  BEGIN
    IF tg_op = 'INSERT' THEN
      v_op := 'c';
      v_merchant := {new_merchant};
      v_key := {new_key};
      v_after := {new_row};
    ELSIF tg_op = 'UPDATE' THEN
      v_op := 'u';
      v_merchant := {new_merchant};
      v_key := {new_key};
      v_old_merchant := {old_merchant};
      v_old_key := {old_key};
      v_moved := v_old_merchant <> v_merchant OR v_old_key <> v_key;
      v_after := {new_row};
      v_before := {old_row};
    ELSE
      v_op := 'd';
      v_merchant := {old_merchant};
      v_key := {old_key};
      v_before := {old_row};
    END IF;
  EXCEPTION WHEN OTHERS THEN
    v_failure := sqlstate;
    v_after := NULL;
    v_before := NULL;
  END;
  IF v_failure IS NOT NULL THEN
    INSERT INTO cdc.notices (table_name, reason) VALUES ({table}, 'row image failed with SQLSTATE ' || v_failure);
    IF v_key IS NULL THEN
      RETURN NULL;
    END IF;
  END IF;
  IF v_moved THEN
    v_op := 'u1';
    v_gone := v_before;
    v_before := NULL;
  END IF;
  SELECT queue_cur_table, nextval({sequence}) INTO v_slot, v_ev FROM pgq.queue WHERE queue_id = {queue};
  IF v_slot = 0 THEN{insert_0}
  ELSIF v_slot = 1 THEN{insert_1}
  ELSE{insert_2}
  END IF;
  RETURN NULL;
END
""")

# Static statements, one per event table of the queue: their plans are kept, an EXECUTE would be planned for each row.
_INSERT = sql.SQL("""
    IF v_moved THEN
      INSERT INTO {events} (ev_id, ev_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
        VALUES (v_ev, now(), 'd', NULL, {table}, v_gone, v_old_merchant, v_old_key);
    END IF;
    INSERT INTO {events} (ev_id, ev_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4)
      VALUES (v_ev, now(), v_op, v_after, {table}, v_before, v_merchant, v_key);""")


def _body(table: Table, queue: QueueNames) -> sql.Composed:
    name = sql.Literal(table.name)
    inserts = {
        f"insert_{slot}": _INSERT.format(
            events=sql.Identifier(*f"{queue.events}_{slot}".split(".")), table=name
        )
        for slot in range(3)
    }
    return _BODY.format(
        table=name,
        queue=sql.Literal(queue.id),
        sequence=sql.Literal(queue.sequence),
        new_row=row_expression(table, NEW),
        old_row=row_expression(table, OLD),
        new_key=key_expression(table, NEW),
        old_key=key_expression(table, OLD),
        new_merchant=merchant_expression(table, NEW),
        old_merchant=merchant_expression(table, OLD),
        **inserts,
    )


def _image_columns(table: Table) -> sql.Composed:
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(_IMAGE_TYPES[_base(column)]))
        for column in table.columns
    ]
    return sql.SQL(", ").join(columns)


def _field(column: Column, record: sql.Composable) -> sql.Composable:
    value = _column(record, column.name)
    if _base(column) == "bigint":
        return sql.SQL("{}::json").format(_safe_integer(value))
    if _base(column) in ("numeric", "character"):
        return sql.SQL("{}::text").format(value)
    return value


def _key_value(kind: str, value: sql.Composable) -> sql.Composable:
    if kind == "bigint":
        return _safe_integer(value)
    if kind in INTEGERS or kind == "boolean":
        return sql.SQL("{}::text").format(value)
    return sql.SQL("to_json({}::text)::text").format(value)


def _safe_integer(value: sql.Composable) -> sql.Composed:
    """A number up to 2^53, a string beyond: JSON readers round larger numbers. NULL stays NULL."""
    return sql.SQL(
        "CASE WHEN {0} BETWEEN -9007199254740992 AND 9007199254740992 THEN {0}::text"
        " ELSE '\"' || {0}::text || '\"' END"
    ).format(value)


def _column(record: sql.Composable, name: str) -> sql.Composed:
    return sql.SQL("{}.{}").format(record, sql.Identifier(name))


def _base(column: Column) -> str:
    return _MODIFIER.sub("", column.type)


def _json_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
