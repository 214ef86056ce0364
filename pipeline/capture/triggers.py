"""The SQL that captures tables: the trigger that writes each change into the queue, and what it needs in schema cdc."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from pipeline.capture import emit, hashing, owners, statement_trigger, strict_trigger, truncate
from pipeline.capture.catalog import TRIGGER
from pipeline.capture.image import (
    NEW,
    OLD,
    image_columns,
    key_expression,
    may_cut,
    object_name,
    plain_expression,
    row_expression,
)
from pipeline.capture.insertion import QueueNames, definer, insertion
from pipeline.capture.merchants import merchant_expression, nobody
from pipeline.domain.table import Table

Statement = sql.SQL | sql.Composed


def shared_objects(queue: QueueNames, emitters: Iterable[str]) -> Iterable[Statement]:
    """What the triggers of all tables need in schema cdc, and `cdc.emit` for the roles `emitters`.

    Run it before any table's `statements`.
    """
    yield owners.CREATE
    yield from hashing.statements()
    yield truncate.function(queue)
    yield from emit.statements(queue, emitters)


def statements(table: Table, queue: QueueNames) -> Iterable[Statement]:
    """What captures `table` from now on, replacing what an earlier install left of it."""
    name = sql.Identifier(object_name(table))
    yield sql.SQL("DROP TYPE IF EXISTS cdc.{}").format(name)
    yield sql.SQL("CREATE TYPE cdc.{} AS ({})").format(name, image_columns(table))
    if table.parent is not None:
        yield from owners.statements(table, table.parent, queue)
    if table.by_statement:
        yield from statement_trigger.statements(table, queue)
    else:
        yield from _row_trigger(table, queue)
    yield truncate.statement(table)


def function_names(tables: Iterable[Table]) -> set[str]:
    """The functions in schema cdc that belong there while these tables are captured."""
    names = {"truncated", "emit", "hash", "disable", "away", "home", "follow_partitions"}
    for table in tables:
        names.add(object_name(table))
        if table.parent is not None:
            names.add(owners.function_name(table))
    return names


def places(tables: Iterable[Table]) -> set[tuple[str, str]]:
    """Table (a partition's: its root) and name of each trigger that belongs there while these tables are captured."""
    found = set()
    for table in tables:
        names = statement_trigger.TRIGGERS.values() if table.by_statement else [TRIGGER]
        found |= {(table.name, name) for name in [*names, truncate.TRIGGER]}
        if table.parent is not None:
            found |= {(table.parent.table, name) for name in owners.trigger_names(table)}
    return found


def _row_trigger(table: Table, queue: QueueNames) -> Iterable[sql.Composed]:
    """On a partitioned table PostgreSQL clones it to every partition, also to those that come later."""
    name = sql.Identifier(object_name(table))
    body = strict_trigger.body(table, queue) if table.strict else _body(table, queue)
    yield definer(sql.SQL("{}()").format(name), "trigger", body, table)
    yield sql.SQL(
        "CREATE OR REPLACE TRIGGER {} AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION cdc.{}()"
    ).format(sql.Identifier(TRIGGER), sql.Identifier(*table.name.split(".", 1)), name)


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
  v_on text;
  v_old_on text;
  v_moved boolean := false;
  v_owned boolean := false;
  v_failure text;
BEGIN
  -- Nothing is written in this block: a write in it would take a transaction id for every row.
  BEGIN
    IF tg_op = 'INSERT' THEN
      v_op := 'c';
      v_key := {new_key};
      v_merchant := {new_merchant};
      {new_image}
    ELSIF tg_op = 'UPDATE' THEN
      v_op := 'u';
      v_key := {new_key};
      v_old_key := {old_key};
      v_merchant := {new_merchant};
      v_old_merchant := {old_merchant};
      v_moved := v_old_merchant <> v_merchant OR v_old_key <> v_key;
      {new_image}
      {old_image}
    ELSE
      v_op := 'd';
      v_key := {old_key};
      v_old_key := v_key;
      v_merchant := {old_merchant};
      {old_image}
    END IF;
    {probe}
  EXCEPTION WHEN OTHERS THEN
    v_failure := sqlstate;
    v_after := NULL;
    v_before := NULL;
  END;
  {lookup}
  IF v_failure IS NOT NULL THEN
    INSERT INTO cdc.notices (table_name, reason) VALUES ({table}, 'row image failed with SQLSTATE ' || v_failure);
    IF v_key IS NULL OR v_merchant IS NULL THEN
      RETURN NULL;
    END IF;
  END IF;
  IF v_moved THEN
    v_op := 'u1';
    v_gone := v_before;
    v_before := NULL;
  END IF;
  {insertion}
  RETURN NULL;
END
""")
_INSERT = """
    IF v_moved THEN
      {into} VALUES (v_ev, now(), 'd', NULL, {table}, v_gone, v_old_merchant, v_old_key);
    END IF;
    {into} VALUES (v_ev, now(), v_op, v_after, {table}, v_before, v_merchant, v_key);"""


def _body(table: Table, queue: QueueNames) -> sql.Composed:
    name, parent, nothing = sql.Literal(table.name), table.parent, sql.SQL("")
    return _BODY.format(
        table=name,
        new_image=_image(table, NEW, sql.SQL("v_after")),
        old_image=_image(table, OLD, sql.SQL("v_before")),
        new_key=key_expression(table, NEW),
        old_key=key_expression(table, OLD),
        new_merchant=nobody(table) if parent else merchant_expression(table, NEW),
        old_merchant=nobody(table) if parent else merchant_expression(table, OLD),
        probe=owners.probe(table, parent) if parent else nothing,
        lookup=owners.lookup(table, parent) if parent else nothing,
        insertion=insertion(queue, _INSERT, table=name),
    )


def _image(table: Table, record: sql.Composable, variable: sql.Composable) -> sql.Composed:
    """PL/pgSQL that puts the row's image into `variable`.

    PostgreSQL makes an expression ready once in every transaction, branches that are not taken included. Those that cut
    are the most of it by far, and a transaction often has but one row: they stand in a statement of their own.
    """
    plain = sql.SQL("{} := {};").format(variable, plain_expression(table, record))
    condition = may_cut(table, record)
    if condition is None:
        return plain
    return sql.SQL("IF {} THEN {} := {}; ELSE {} END IF;").format(
        condition, variable, row_expression(table, record), plain
    )
