"""Capture by statement: one trigger call writes the events of all rows that a statement changed.

The events and their order are those of the row trigger; a bulk statement costs a third of it, a statement of one row
more. PostgreSQL appends old and new rows to their transition tables together: the n-th of one belongs to the n-th of
the other.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from pipeline.capture.image import key_expression, object_name, row_expression
from pipeline.capture.insertion import QueueNames, by_slot, definer
from pipeline.capture.merchants import merchant_expression
from pipeline.domain.table import Table

TRIGGERS = {"INSERT": "!cdc_insert", "UPDATE": "!cdc_update", "DELETE": "!cdc_delete"}
_TRANSITIONS = {
    "INSERT": sql.SQL("NEW TABLE AS new_rows"),
    "UPDATE": sql.SQL("OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    "DELETE": sql.SQL("OLD TABLE AS old_rows"),
}
_BEFORE, _AFTER = sql.SQL("o"), sql.SQL("n")


def statements(table: Table, queue: QueueNames) -> Iterable[sql.Composed]:
    """The function and its three triggers."""
    name, relation = sql.Identifier(object_name(table)), sql.Identifier(*table.name.split(".", 1))
    yield definer(sql.SQL("{}()").format(name), "trigger", _body(table, queue), table)
    for operation, trigger in TRIGGERS.items():
        yield sql.SQL(
            "CREATE OR REPLACE TRIGGER {} AFTER {} ON {} REFERENCING {} FOR EACH STATEMENT EXECUTE FUNCTION cdc.{}()"
        ).format(sql.Identifier(trigger), sql.SQL(operation), relation, _TRANSITIONS[operation], name)


# One block for a statement, so the writes in it cost one transaction id. When an image fails, nothing of it stays, and
# every row is told by its key alone.
_BODY = """
DECLARE
  v_slot integer;
  v_failure text;
BEGIN
  SELECT queue_cur_table INTO v_slot FROM pgq.queue WHERE queue_id = {queue};
  BEGIN
    IF tg_op = 'INSERT' THEN {inserted}
    ELSIF tg_op = 'UPDATE' THEN {updated}
    ELSE {deleted}
    END IF;
    RETURN NULL;
  EXCEPTION WHEN OTHERS THEN
    v_failure := sqlstate;
  END;
  INSERT INTO cdc.notices (table_name, reason) VALUES ({table}, 'row image failed with SQLSTATE ' || v_failure);
  BEGIN
    IF tg_op = 'DELETE' THEN {failed_old}
    ELSE {failed_new}
    END IF;
  EXCEPTION WHEN OTHERS THEN
    INSERT INTO cdc.notices (table_name, reason) VALUES ({table}, 'row key failed with SQLSTATE ' || sqlstate);
  END;
  RETURN NULL;
END
"""
_INSERTED = """
  {into} SELECT nextval({sequence}), now(), 'c', {new_row}, {table}, NULL, {new_merchant}, {new_key} FROM new_rows n;"""
_DELETED = """
  {into} SELECT nextval({sequence}), now(), 'd', NULL, {table}, {old_row}, {old_merchant}, {old_key} FROM old_rows o;"""
# Sorted before ev_ids are drawn: a join may hand the pairs over in any order, and one key can be left by one row and
# taken by the next.
_UPDATED = """
  {into}
    SELECT ev, now(), event.* FROM (
      SELECT nextval({sequence}) AS ev, pair.* FROM (
        SELECT {old_row} AS old_row, {new_row} AS new_row, {old_merchant} AS old_merchant,
               {new_merchant} AS new_merchant, {old_key} AS old_key, {new_key} AS new_key
        FROM (SELECT row_number() OVER () AS "!place", * FROM old_rows) o
        JOIN (SELECT row_number() OVER () AS "!place", * FROM new_rows) n USING ("!place")
        ORDER BY "!place"
      ) pair
    ) change
    CROSS JOIN LATERAL (
      SELECT 'd', NULL, {table}, old_row, old_merchant, old_key
        WHERE old_merchant <> new_merchant OR old_key <> new_key
      UNION ALL
      SELECT 'u1', new_row, {table}, NULL, new_merchant, new_key
        WHERE old_merchant <> new_merchant OR old_key <> new_key
      UNION ALL
      SELECT 'u', new_row, {table}, old_row, new_merchant, new_key
        WHERE old_merchant = new_merchant AND old_key = new_key
    ) event;"""
_FAILED_NEW = """
  {into} SELECT nextval({sequence}), now(), CASE tg_op WHEN 'INSERT' THEN 'c' ELSE 'u' END, NULL, {table}, NULL,
    {new_merchant}, {new_key} FROM new_rows n;"""
_FAILED_OLD = """
  {into} SELECT nextval({sequence}), now(), 'd', NULL, {table}, NULL, {old_merchant}, {old_key} FROM old_rows o;"""


def _body(table: Table, queue: QueueNames) -> sql.Composed:
    parts: dict[str, sql.Composable] = {
        "table": sql.Literal(table.name),
        "sequence": sql.Literal(queue.sequence),
        "new_row": row_expression(table, _AFTER),
        "old_row": row_expression(table, _BEFORE),
        "new_key": key_expression(table, _AFTER),
        "old_key": key_expression(table, _BEFORE),
        "new_merchant": merchant_expression(table, _AFTER),
        "old_merchant": merchant_expression(table, _BEFORE),
    }
    return sql.SQL(_BODY).format(
        queue=sql.Literal(queue.id),
        table=parts["table"],
        inserted=by_slot(queue, _INSERTED, **parts),
        updated=by_slot(queue, _UPDATED, **parts),
        deleted=by_slot(queue, _DELETED, **parts),
        failed_new=by_slot(queue, _FAILED_NEW, **parts),
        failed_old=by_slot(queue, _FAILED_OLD, **parts),
    )
