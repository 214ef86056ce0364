"""Strict capture, for tables with other AFTER triggers: each event shows its key as it stands when the event is written.

Another trigger may change a row after our trigger was queued for it and before it runs. Then the queued row is stale,
yet its event would take the higher ev_id. So the row is read again: found, it is the event; not found, it is deleted.
What the event says is then a function of key and ev_id, whatever ran before it.
"""

from __future__ import annotations

from psycopg import sql

from pipeline.capture.image import NEW, OLD, column_of, key_expression, row_expression
from pipeline.capture.insertion import QueueNames, insertion
from pipeline.capture.merchants import merchant_expression
from pipeline.domain.table import Table

_FOUND, _ROW = sql.SQL("v_row"), sql.SQL("t")

# One round for each key: an UPDATE that changes the key has two.
_BODY = """
#variable_conflict use_variable
DECLARE
  v_slot integer;
  v_ev bigint;
  v_op text;
  v_row record;
  v_found boolean;
  v_rounds integer := 1;
  v_key text;
  v_merchant text;
  v_after text;
  v_before text;
  v_last_merchant text;
  v_failure text;
BEGIN
  BEGIN
    IF tg_op = 'UPDATE' AND {old_key} <> {new_key} THEN
      v_rounds := 2;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    v_failure := sqlstate;
  END;
  FOR v_round IN 1..v_rounds LOOP
    v_found := true;
    v_merchant := NULL;
    v_after := NULL;
    v_before := NULL;
    -- Nothing is written in this block: a write in it would take a transaction id for every row.
    BEGIN
      IF tg_op = 'INSERT' OR v_round = 2 THEN
        v_key := {new_key};
        v_last_merchant := {new_merchant};
        SELECT * INTO v_row FROM {relation} t WHERE {is_new};
      ELSE
        v_key := {old_key};
        v_last_merchant := {old_merchant};
        v_before := {old_row};
        SELECT * INTO v_row FROM {relation} t WHERE {is_old};
      END IF;
      v_found := FOUND;
      v_merchant := v_last_merchant;
      IF v_found THEN
        v_merchant := {merchant};
        v_after := {row};
      END IF;
    EXCEPTION WHEN OTHERS THEN
      v_failure := sqlstate;
      v_after := NULL;
      v_before := NULL;
    END;
    IF v_failure IS NOT NULL THEN
      INSERT INTO cdc.notices (table_name, reason) VALUES ({table}, 'row image failed with SQLSTATE ' || v_failure);
      IF v_key IS NULL OR v_merchant IS NULL THEN
        RETURN NULL;
      END IF;
    END IF;
    v_op := CASE WHEN NOT v_found THEN 'd' WHEN v_last_merchant <> v_merchant THEN 'u1'
                 WHEN tg_op = 'INSERT' THEN 'c' WHEN v_round = 2 THEN 'u1' ELSE 'u' END;
    {insertion}
  END LOOP;
  RETURN NULL;
END
"""
_INSERT = """
      IF v_op = 'u1' AND v_last_merchant <> v_merchant THEN
        {into} VALUES (v_ev, now(), 'd', NULL, {table}, v_before, v_last_merchant, v_key);
        v_before := NULL;
      END IF;
      {into} VALUES (v_ev, now(), v_op, v_after, {table}, v_before, v_merchant, v_key);"""


def body(table: Table, queue: QueueNames) -> sql.Composed:
    """The body of the table's trigger function; it needs plans without sequential scans."""
    name = sql.Literal(table.name)
    return sql.SQL(_BODY).format(
        table=name,
        relation=sql.Identifier(*table.name.split(".", 1)),
        is_new=_is(table, NEW),
        is_old=_is(table, OLD),
        row=row_expression(table, _FOUND),
        merchant=merchant_expression(table, _FOUND),
        old_row=row_expression(table, OLD),
        new_key=key_expression(table, NEW),
        old_key=key_expression(table, OLD),
        new_merchant=merchant_expression(table, NEW),
        old_merchant=merchant_expression(table, OLD),
        insertion=insertion(queue, _INSERT, table=name),
    )


def _is(table: Table, record: sql.Composable) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(column_of(_ROW, name), column_of(record, name)) for name in table.key
    )
