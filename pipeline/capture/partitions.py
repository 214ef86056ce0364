"""Partitions that come and go between installs.

``cdc.follow_partitions()`` compares those there are with those there were. What went took rows along, what was
attached may have brought some, and neither made an event: each leaves a notice. New ones get their trigger for
TRUNCATE.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psycopg
from psycopg import sql

from pipeline.capture import truncate
from pipeline.capture.session import Connection

FOLLOW = sql.SQL("SELECT cdc.follow_partitions()")


def schema() -> Iterable[sql.SQL | sql.Composed]:
    """What the source needs for it; statements that may be repeated."""
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.partitions (root text, part oid, name text NOT NULL, attached text NOT NULL,"
        " PRIMARY KEY (root, part))"
    )
    yield _FUNCTION


def follow(connection: Connection) -> None:
    """Look once; while somebody holds a partition locked, or drops it just now, that waits for the next time."""
    with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable):
        connection.execute(FOLLOW)


# Whoever waits for a lock has writers waiting behind him, so nothing here waits long. `attached` is the transaction that
# made a table part of its root. One that made the table itself as well had no row to bring, unless it wrote some before:
# these are the first that lie there.
_FUNCTION = sql.SQL("""
CREATE OR REPLACE FUNCTION cdc.follow_partitions() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $cdc$
DECLARE
  v_root record;
  v_part record;
  v_fresh boolean;
  v_gone text;
  v_brought boolean;
BEGIN
  DELETE FROM cdc.partitions WHERE root NOT IN (SELECT table_name FROM cdc.captured);
  FOR v_root IN SELECT table_name AS name, relation FROM cdc.captured JOIN pg_class c ON c.oid = relation
                WHERE relkind = 'p' LOOP
    v_fresh := NOT EXISTS (SELECT FROM cdc.partitions WHERE root = v_root.name AND part = v_root.relation);
    WITH present AS (
      SELECT relid, coalesce(i.xmin::text, '') AS attached
      FROM pg_partition_tree(v_root.relation) LEFT JOIN pg_inherits i ON inhrelid = relid
    ), gone AS (
      DELETE FROM cdc.partitions p WHERE root = v_root.name
        AND NOT EXISTS (SELECT FROM present WHERE relid = p.part AND present.attached = p.attached)
      RETURNING p.name
    )
    SELECT string_agg(name, ', ' ORDER BY name) INTO v_gone FROM gone;
    IF v_gone IS NOT NULL AND NOT v_fresh THEN
      INSERT INTO cdc.notices (table_name, reason, mendable) VALUES (v_root.name, 'detached or dropped: ' || v_gone, true);
    END IF;

    FOR v_part IN
      SELECT relid, relid::regclass::text AS name, coalesce(i.xmin::text, '') AS attached, i.xmin <> a.xmin AS had_a_past
      FROM pg_partition_tree(v_root.relation) JOIN pg_class c ON c.oid = relid
      LEFT JOIN pg_inherits i ON inhrelid = relid LEFT JOIN pg_attribute a ON attrelid = relid AND attname = 'ctid'
      WHERE relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM cdc.partitions WHERE root = v_root.name AND part = relid)
    LOOP
      INSERT INTO cdc.partitions VALUES (v_root.name, v_part.relid, v_part.name, v_part.attached);
      CONTINUE WHEN v_fresh;
      BEGIN
        EXECUTE format('SELECT coalesce((SELECT %L OR xmin::text = %L FROM %s LIMIT 1), false)',
                       v_part.had_a_past, v_part.attached, v_part.name) INTO v_brought;
      EXCEPTION
        WHEN insufficient_privilege THEN v_brought := v_part.had_a_past;  -- another role's: only the root may be read
      END;
      IF v_brought THEN
        INSERT INTO cdc.notices (table_name, reason, mendable)
          VALUES (v_root.name, 'attached with rows of its own: ' || v_part.name, true);
      END IF;
    END LOOP;

    FOR v_part IN
      SELECT relid::regclass::text AS name FROM pg_partition_tree(v_root.relation) JOIN pg_class c ON c.oid = relid
      WHERE relkind IN ('r', 'p') AND NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = relid AND tgfoid = 'cdc.truncated()'::regprocedure)
    LOOP
      BEGIN
        EXECUTE format('CREATE TRIGGER {trigger} AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION'
                       ' cdc.truncated(%L)', v_part.name, v_root.name);
      EXCEPTION
        WHEN insufficient_privilege THEN CONTINUE;
        WHEN lock_not_available THEN EXIT;
      END;
    END LOOP;
  END LOOP;
END
$cdc$
""").format(trigger=sql.Identifier(truncate.TRIGGER))
