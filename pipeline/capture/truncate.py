"""TRUNCATE fires no row trigger. Of a whole table it is an event at its place, which the relay sends as a sweep.

Of one partition no sweep tells: nobody knows which rows lay there. Its event carries the number of the notice that a
snapshot of the root is needed. Where the root was emptied by the same statement, as PostgreSQL empties partitions with
it, the notice is moot: no row was written in between.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from pipeline.capture.insertion import QueueNames, definer, insertion
from pipeline.capture.queue import Event
from pipeline.capture.session import Connection
from pipeline.domain.table import Table

TRIGGER = "!cdc_truncate"
WHOLE, PART = "t", "tp"

# Told by argument, a partition's trigger knows its root; after a detachment it is none of it.
_BODY = sql.SQL("""
#variable_conflict use_variable
DECLARE
  v_slot integer;
  v_ev bigint;
  v_root oid;
  v_op text;
  v_notice bigint;
BEGIN
  SELECT relation INTO v_root FROM cdc.captured WHERE table_name = tg_argv[0];
  IF tg_relid = v_root THEN
    v_op := {whole};
  ELSIF pg_partition_root(tg_relid) = v_root THEN
    v_op := {part};
    INSERT INTO cdc.notices (table_name, reason)
      VALUES (tg_argv[0], 'partition ' || tg_table_schema || '.' || tg_table_name || ' truncated')
      RETURNING id INTO v_notice;
  ELSE
    RETURN NULL;
  END IF;
  {insertion}
  RETURN NULL;
END
""")
_INSERT = "{into} VALUES (v_ev, now(), v_op, NULL, tg_argv[0], NULL, '', coalesce(v_notice::text, ''));"


def function(queue: QueueNames) -> sql.Composed:
    """The trigger function of all tables."""
    body = _BODY.format(whole=sql.Literal(WHOLE), part=sql.Literal(PART), insertion=insertion(queue, _INSERT))
    return definer(sql.SQL("truncated()"), "trigger", body)


def statement(table: Table) -> sql.Composed:
    """The trigger on the table and on every partition it has; PostgreSQL clones row triggers alone to new ones."""
    body = sql.SQL("""
DECLARE
  v_part regclass;
BEGIN
  FOR v_part IN SELECT {root}::regclass UNION SELECT relid FROM pg_partition_tree({root}::regclass)
      JOIN pg_class ON oid = relid AND relkind IN ('r', 'p') LOOP
    EXECUTE format('CREATE OR REPLACE TRIGGER {trigger} AFTER TRUNCATE ON %s'
      ' FOR EACH STATEMENT EXECUTE FUNCTION cdc.truncated(%L)', v_part, {name});
  END LOOP;
END
""").format(
        root=sql.Literal(sql.Identifier(*table.name.split(".", 1)).as_string(None)),
        trigger=sql.Identifier(TRIGGER),
        name=sql.Literal(table.name),
    )
    return sql.SQL("DO {}").format(sql.Literal(body.as_string(None)))


class Truncations:
    """What one batch tells of TRUNCATE. `emptied`: tables in which their transaction has written nothing since."""

    def __init__(self) -> None:
        self.emptied: set[tuple[int, str]] = set()
        self._moot: list[int] = []
        self._needed: list[int] = []

    def note(self, event: Event) -> bool:
        """Take a TRUNCATE's event; True when it is of a whole table, to be swept."""
        place = event.txid, event.table
        if event.op == WHOLE:
            self.emptied.add(place)
            return True
        (self._moot if place in self.emptied else self._needed).append(int(event.key))
        return False

    def settle(self, connection: Connection) -> None:
        """Take moot notices away, and let the others be mended; may be repeated."""
        if self._moot or self._needed:
            connection.execute("DELETE FROM cdc.notices WHERE id = ANY (%s)", (self._moot,))
            connection.execute("UPDATE cdc.notices SET mendable = true WHERE id = ANY (%s)", (self._needed,))


def columns() -> Iterable[sql.SQL]:
    """What notices have for it; statements that may be repeated."""
    yield sql.SQL("ALTER TABLE cdc.notices ADD COLUMN IF NOT EXISTS mendable boolean NOT NULL DEFAULT false")
