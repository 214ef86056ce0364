"""``cdc.owners``: whose each row is that takes its merchant from a parent.

A row's last merchant cannot be read from its parent: under ON DELETE CASCADE the parent is gone before the row, and a
parent may have changed hands. So it is kept beside the row, under the row's own lock: written when the row comes (its
parent locked as its foreign key locks it), changed when the parent changes hands, deleted with the row. Rows older
than the capture have none until something happens to them or to their parent.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from pipeline.capture.image import (
    NEW,
    OLD,
    column_of,
    key_expression,
    object_name,
    row_expression,
    text_of,
)
from pipeline.capture.insertion import QueueNames, definer, insertion
from pipeline.capture.merchants import PARENT, merchant_in, nobody, parent_of
from pipeline.capture.session import Connection
from pipeline.domain.table import Parent, Table

CREATE = sql.SQL(
    "CREATE TABLE IF NOT EXISTS cdc.owners (child text, key bytea, merchant text NOT NULL, PRIMARY KEY (child, key))"
)
_CHILD, _LOCKED = sql.SQL("child"), sql.SQL("v_child")

# In the row's own trigger, outside its EXCEPTION block: a lock or write inside would take a transaction id for every row.
# The block before has put what it needs of the row into texts and has run the same lookup over no rows, so what DDL or a
# REVOKE has broken ends there; fields of the row must not be used here: a session that has a plan from before an ALTER
# COLUMN … TYPE fails at them. The lock may have waited, and FOR KEY SHARE gives the row as it was before: it is read
# again. Under REPEATABLE READ that would not help, and FOR SHARE alone notices a parent that changed hands after the
# snapshot (serialization_failure, as for any such conflict).
_LOOKUP = """
  IF v_failure IS NULL THEN
    IF tg_op <> 'INSERT' THEN
      SELECT owner.merchant INTO v_old_merchant FROM cdc.owners owner
        WHERE owner.child = {table} AND owner.key = sha256(convert_to(v_old_key, 'UTF8')) FOR UPDATE;
      v_owned := FOUND;
      IF NOT v_owned THEN
        SELECT {old_merchant} INTO v_old_merchant {old_parent};
        v_old_merchant := coalesce(v_old_merchant, {nobody});
      END IF;
    END IF;
    IF tg_op = 'DELETE' OR tg_op = 'UPDATE' AND v_old_on IS NOT DISTINCT FROM v_on THEN
      v_merchant := v_old_merchant;
    ELSIF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
      SELECT {new_merchant} INTO v_merchant {new_parent} FOR SHARE;
    ELSE
      PERFORM {new_parent} FOR KEY SHARE;
      SELECT {new_merchant} INTO v_merchant {new_parent};
    END IF;
    v_merchant := coalesce(v_merchant, {nobody});
    IF v_owned AND (tg_op = 'DELETE' OR v_old_key <> v_key) THEN
      DELETE FROM cdc.owners owner WHERE owner.child = {table} AND owner.key = sha256(convert_to(v_old_key, 'UTF8'));
    END IF;
    IF tg_op = 'INSERT' OR tg_op = 'UPDATE' AND (NOT v_owned OR v_old_key <> v_key OR v_old_merchant <> v_merchant) THEN
      INSERT INTO cdc.owners AS owner VALUES ({table}, sha256(convert_to(v_key, 'UTF8')), v_merchant)
        ON CONFLICT (child, key) DO UPDATE SET merchant = EXCLUDED.merchant;
    END IF;
    v_moved := tg_op = 'UPDATE' AND (v_old_merchant <> v_merchant OR v_old_key <> v_key);
  ELSE
    v_merchant := {nobody};
  END IF;
"""

_PROBE = """
    IF tg_op <> 'DELETE' THEN
      v_on := {new_on};
    END IF;
    IF tg_op <> 'INSERT' THEN
      v_old_on := {old_on};
    END IF;
    PERFORM {merchant} {new_parent} LIMIT 0 FOR KEY SHARE;
    PERFORM {merchant} {old_parent} LIMIT 0;"""


def lookup(table: Table, parent: Parent) -> sql.Composed:
    """PL/pgSQL of the row's trigger: ``v_merchant``, ``v_old_merchant`` and ``v_moved``, from ``v_key`` and ``v_old_key``."""
    merchant, new_parent, old_parent = _parents(table, parent)
    return sql.SQL(_LOOKUP).format(
        table=sql.Literal(table.name),
        nobody=nobody(table),
        old_merchant=merchant,
        old_parent=old_parent,
        new_merchant=merchant,
        new_parent=new_parent,
    )


def probe(table: Table, parent: Parent) -> sql.Composed:
    """PL/pgSQL that fails when the lookup would, and sets ``v_on`` and ``v_old_on`` for it."""
    merchant, new_parent, old_parent = _parents(table, parent)
    on = table.column(parent.on)
    return sql.SQL(_PROBE).format(
        merchant=merchant,
        new_on=text_of(on, NEW),
        old_on=text_of(on, OLD),
        new_parent=new_parent,
        old_parent=old_parent,
    )


def _parents(table: Table, parent: Parent) -> tuple[sql.Composed, sql.Composed, sql.Composed]:
    """The merchant as an expression over the parent; the FROM and WHERE of the new row's parent and of the old one's."""
    on = table.column(parent.on)
    kind = sql.SQL(on.stored or on.type)
    new, old = (
        parent_of(parent, sql.SQL("{}::{}").format(sql.SQL(text), kind)) for text in ("v_on", "v_old_on")
    )
    return merchant_in(parent.merchant, PARENT, nobody(table)), new, old


def function_name(table: Table) -> str:
    """The function in schema cdc that follows the changes of this table's parents."""
    return f"{object_name(table)}_own"


def trigger_names(table: Table) -> tuple[str, str]:
    """The triggers on the parent, for UPDATE and DELETE; by name they fire before foreign keys cascade."""
    digest = object_name(table)[-8:]
    return f"!cdc_owners_{digest}_u", f"!cdc_owners_{digest}_d"


def statements(table: Table, parent: Parent, queue: QueueNames) -> Iterable[sql.Composed]:
    """What follows the parents of `table`."""
    name = sql.Identifier(function_name(table))
    relation = sql.Identifier(*parent.table.split(".", 1))
    on_update, on_delete = (sql.Identifier(each) for each in trigger_names(table))
    yield definer(sql.SQL("{}()").format(name), "trigger", _body(table, parent, queue), table)
    # No WHEN and no UPDATE OF: PostgreSQL would refuse to change or drop the columns they name.
    yield sql.SQL(
        "CREATE OR REPLACE TRIGGER {} AFTER UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION cdc.{}()"
    ).format(on_update, relation, name)
    yield sql.SQL(
        "CREATE OR REPLACE TRIGGER {} AFTER DELETE ON {} FOR EACH ROW EXECUTE FUNCTION cdc.{}()"
    ).format(on_delete, relation, name)


# A parent that goes, or takes another key, leaves its merchant to the children that have none noted: a cascade may follow.
# One that changes hands takes them along: first nobody may add to them (their triggers wait for the parent's lock),
# then nobody may change them. All of it may fail when a table was altered, and is told then; what ends any transaction
# that conflicts with another ends this one too.
_BODY = """
#variable_conflict use_variable
DECLARE
  v_slot integer;
  v_ev bigint;
  v_child record;
  v_key text;
  v_image text;
  v_merchant text;
  v_old_merchant text;
  v_rekeyed boolean;
  v_failure text;
BEGIN
  IF tg_op = 'UPDATE' THEN
    v_rekeyed := {old_key} IS DISTINCT FROM {new_key};
    IF NOT v_rekeyed AND {old_owner} IS NOT DISTINCT FROM {new_owner} THEN
      RETURN NULL;
    END IF;
  END IF;
  IF tg_op = 'DELETE' OR v_rekeyed THEN
    INSERT INTO cdc.owners
      SELECT {table}, sha256(convert_to({key_of_child}, 'UTF8')), {old_merchant} FROM {relation} child
      WHERE {on_of_child} = {old_key}
      ON CONFLICT (child, key) DO NOTHING;
    RETURN NULL;
  END IF;
  v_merchant := {new_merchant};
  PERFORM FROM {parent} parent WHERE {parent_key} = {new_key} FOR UPDATE;
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
    INSERT INTO cdc.notices (table_name, reason)
      VALUES ({table}, 'a parent changed hands in a transaction that may not see all its rows');
  END IF;
  FOR v_child IN SELECT * FROM {relation} child WHERE {on_of_child} = {new_key} FOR UPDATE LOOP
    v_key := {child_key};
    v_image := NULL;
    BEGIN
      v_image := {child_row};
    EXCEPTION WHEN OTHERS THEN
      v_failure := sqlstate;
    END;
    SELECT owner.merchant INTO v_old_merchant FROM cdc.owners owner
      WHERE owner.child = {table} AND owner.key = sha256(convert_to(v_key, 'UTF8'));
    v_old_merchant := coalesce(v_old_merchant, {old_merchant});
    IF v_old_merchant <> v_merchant THEN
      INSERT INTO cdc.owners AS owner VALUES ({table}, sha256(convert_to(v_key, 'UTF8')), v_merchant)
        ON CONFLICT (child, key) DO UPDATE SET merchant = EXCLUDED.merchant;
      {insertion}
    END IF;
  END LOOP;
  IF v_failure IS NOT NULL THEN
    INSERT INTO cdc.notices (table_name, reason) VALUES ({table}, 'row image failed with SQLSTATE ' || v_failure);
  END IF;
  RETURN NULL;
EXCEPTION
  WHEN transaction_rollback OR lock_not_available THEN
    RAISE;
  WHEN OTHERS THEN
    INSERT INTO cdc.notices (table_name, reason) VALUES ({table}, 'a parent changed, SQLSTATE ' || sqlstate);
    RETURN NULL;
END
"""
_INSERT = """
        {into} VALUES (v_ev, now(), 'd', NULL, {table}, v_image, v_old_merchant, v_key);
        {into} VALUES (v_ev, now(), 'u1', v_image, {table}, NULL, v_merchant, v_key);"""


def _body(table: Table, parent: Parent, queue: QueueNames) -> sql.Composed:
    name = sql.Literal(table.name)
    return sql.SQL(_BODY).format(
        table=name,
        relation=sql.Identifier(*table.name.split(".", 1)),
        parent=sql.Identifier(*parent.table.split(".", 1)),
        parent_key=column_of(sql.SQL("parent"), parent.key.name),
        child_key=key_expression(table, _LOCKED),
        child_row=row_expression(table, _LOCKED),
        key_of_child=key_expression(table, _CHILD),
        on_of_child=column_of(_CHILD, parent.on),
        old_key=column_of(OLD, parent.key.name),
        new_key=column_of(NEW, parent.key.name),
        old_owner=column_of(OLD, parent.merchant.name),
        new_owner=column_of(NEW, parent.merchant.name),
        old_merchant=merchant_in(parent.merchant, OLD, nobody(table)),
        new_merchant=merchant_in(parent.merchant, NEW, nobody(table)),
        insertion=insertion(queue, _INSERT, table=name),
    )


def forget_all() -> sql.SQL:
    """For when parents may have changed hands unseen: each row's owner is looked up again when something happens to it."""
    return sql.SQL("DELETE FROM cdc.owners")


def begin_forgetting(connection: Connection) -> int:
    """A bound for `forget`: whatever is noted from now on is kept."""
    row = connection.execute("SELECT txid_current() % 4294967296").fetchone()
    assert row is not None  # a SELECT without FROM yields one row
    return int(row[0])


def forget(connection: Connection, table: Table, since: int) -> int | None:
    """Forget some owners of rows of `table` noted before `since`; how many, 0 when writers hold all that are left.

    None when none is left. It waits for nobody.
    """
    row = connection.execute(_FORGET, {"table": table.name, "since": since, "many": _FORGOTTEN}).fetchone()
    assert row is not None  # an aggregate yields one row
    count, left = row
    return int(count) if left else None


_FORGOTTEN = 5_000
_FORGET = """
WITH old AS MATERIALIZED (
  SELECT child, key FROM cdc.owners WHERE child = %(table)s AND age(xmin) > age(%(since)s::text::xid)
  LIMIT %(many)s FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM cdc.owners USING old WHERE owners.child = old.child AND owners.key = old.key RETURNING 1
)
SELECT count(*), count(*) > 0 OR EXISTS (
  SELECT FROM cdc.owners WHERE child = %(table)s AND age(xmin) > age(%(since)s::text::xid))
FROM gone
"""
