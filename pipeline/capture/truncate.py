"""TRUNCATE fires no row trigger: it succeeds, and leaves a notice that a snapshot is needed."""

from __future__ import annotations

from psycopg import sql

from pipeline.capture.insertion import definer
from pipeline.domain.table import Table

TRIGGER = "!cdc_truncate"

# A partition may be truncated alone, and its trigger tells the root by argument.
_BODY = sql.SQL("""
BEGIN
  INSERT INTO cdc.notices (table_name, reason)
    VALUES (tg_argv[0], CASE WHEN tg_argv[0] = tg_table_schema || '.' || tg_table_name THEN 'truncated'
                             ELSE 'partition ' || tg_table_schema || '.' || tg_table_name || ' truncated' END);
  RETURN NULL;
END
""")


def function() -> sql.Composed:
    """The trigger function of all tables."""
    return definer(sql.SQL("truncated()"), "trigger", _BODY)


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
