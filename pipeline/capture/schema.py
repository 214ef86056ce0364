"""Schema ``cdc``: what capture keeps in a source besides its queue and its triggers, in a form that upgrades in place.

Every statement says what must be there and changes nothing where it is, so an install by any earlier release becomes
this one's by running all of them. ``SCHEMA_VERSION`` (in ``identity``) is raised with every change of what is here or of
what the triggers write: a relay refuses to work on another version than its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import sql

from pipeline.capture import away, partitions, progress, truncate
from pipeline.capture.identity import SCHEMA_VERSION, Identity
from pipeline.capture.insertion import QueueNames
from pipeline.capture.pgq import Origin
from pipeline.capture.queue import CONSUMER, QUEUE
from pipeline.capture.script import Statement
from pipeline.domain.table import Table


def statements(identity: Identity, origin: Origin) -> Iterable[Statement]:
    """The schema, and who this source is."""
    yield sql.SQL("CREATE SCHEMA IF NOT EXISTS cdc")
    yield from _tables()
    yield _DISABLE
    yield sql.SQL(
        "INSERT INTO cdc.identity (source, uuid, system_identifier, database_oid, generation, installed_at, version, pgq)"
        " VALUES ({}, {}, {}, {}, {}, now(), {version}, {}) ON CONFLICT (one) DO UPDATE SET uuid = EXCLUDED.uuid,"
        " system_identifier = EXCLUDED.system_identifier, database_oid = EXCLUDED.database_oid,"
        " generation = EXCLUDED.generation, installed_at = EXCLUDED.installed_at, version = EXCLUDED.version,"
        " pgq = CASE WHEN EXCLUDED.pgq = 'found' THEN identity.pgq ELSE EXCLUDED.pgq END"
    ).format(
        sql.Literal(identity.source),
        sql.Literal(identity.uuid),
        sql.Literal(identity.system),
        sql.Literal(identity.database),
        sql.Literal(identity.generation),
        sql.Literal(origin),
        version=sql.Literal(SCHEMA_VERSION),
    )


def _tables() -> Iterable[Statement]:
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.identity (one boolean PRIMARY KEY DEFAULT true CHECK (one), source text NOT NULL,"
        " uuid uuid NOT NULL, system_identifier bigint NOT NULL, database_oid bigint NOT NULL,"
        " generation integer NOT NULL, installed_at timestamptz NOT NULL)"
    )
    yield sql.SQL(
        "ALTER TABLE cdc.identity ADD COLUMN IF NOT EXISTS version integer NOT NULL DEFAULT 1,"
        " ADD COLUMN IF NOT EXISTS pgq text NOT NULL DEFAULT 'found'"
    )
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.marks (ev_id bigint PRIMARY KEY, generation integer NOT NULL,"
        " txid bigint NOT NULL DEFAULT txid_current(), at timestamptz NOT NULL DEFAULT now())"
    )
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.notices (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " table_name text NOT NULL, reason text NOT NULL, at timestamptz NOT NULL DEFAULT now(),"
        " txid bigint NOT NULL DEFAULT txid_current())"
    )
    yield from truncate.columns()
    yield from progress.schema()
    yield from away.schema()
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.captured (table_name text PRIMARY KEY, relation oid NOT NULL,"
        " columns text NOT NULL, definition text NOT NULL, strict boolean NOT NULL, lookup text)"
    )
    yield from partitions.schema()
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.disabled (one boolean PRIMARY KEY DEFAULT true CHECK (one),"
        " at timestamptz NOT NULL DEFAULT now(), by text NOT NULL DEFAULT session_user, reason text NOT NULL)"
    )


def queue() -> Iterable[Statement]:
    """A queue made anew, with our consumer."""
    name = sql.Literal(QUEUE)
    yield sql.SQL("TRUNCATE cdc.marks, cdc.progress")
    yield sql.SQL("SELECT pgq.create_queue({})").format(name)
    # With both at zero every call of the ticker ticks: the relay decides when.
    yield sql.SQL("SELECT pgq.set_queue_config({}, 'ticker_max_lag', '0')").format(name)
    yield sql.SQL("SELECT pgq.set_queue_config({}, 'ticker_idle_period', '0')").format(name)
    yield sql.SQL("SELECT pgq.set_queue_config({}, 'rotation_period', '30 minutes')").format(name)
    yield sql.SQL("SELECT pgq.register_consumer({}, {})").format(name, sql.Literal(CONSUMER))


def drop_queue() -> Iterable[Statement]:
    """Takes the queue out with all that is in it; no trigger may be left that writes into it."""
    yield sql.SQL("DROP VIEW IF EXISTS cdc.writes_fail_without_this_queue")
    yield sql.SQL("SELECT pgq.drop_queue({}, true)").format(sql.Literal(QUEUE))


def guard(names: QueueNames) -> Iterable[Statement]:
    """Nobody drops the queue while triggers write into it.

    The view depends on the queue's tables and its sequence, so PostgreSQL refuses, and shows its name. Where PgQ is an
    extension, dropping it by force takes the triggers along instead of leaving some that fail every write.
    """
    tables = [sql.Identifier(*f"{names.events}{part}".split(".")) for part in ("", "_0", "_1", "_2")]
    yield sql.SQL("DROP VIEW IF EXISTS cdc.writes_fail_without_this_queue")
    yield sql.SQL("CREATE VIEW cdc.writes_fail_without_this_queue AS SELECT {}, last_value FROM {}").format(
        sql.SQL(", ").join(
            sql.SQL("NULL::{} AS {}").format(table, sql.Identifier(f"part_{place}"))
            for place, table in enumerate(tables)
        ),
        sql.Identifier(*names.sequence.split(".")),
    )
    yield _FALL_WITH_EXTENSION


def seal(found: Sequence[Table]) -> Iterable[Statement]:
    """At the end: write down what is captured and how, for lint to compare, and give nobody a function by default."""
    yield sql.SQL("DELETE FROM cdc.captured")
    for table in found:
        yield sql.SQL(
            "INSERT INTO cdc.captured (table_name, relation, columns, definition, strict, lookup)"
            " SELECT {}, c.oid, {columns}, {definition}, {}, {} FROM pg_class c WHERE c.oid = {}::regclass"
        ).format(
            sql.Literal(table.name),
            sql.Literal(table.strict),
            sql.Literal(table.parent.on if table.parent else None),
            sql.Literal(sql.Identifier(*table.name.split(".", 1)).as_string(None)),
            columns=COLUMNS,
            definition=DEFINITION,
        )
    yield partitions.FOLLOW
    yield sql.SQL("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA cdc FROM PUBLIC")
    yield _GRANT_TO_OWNERS


_FALL_WITH_EXTENSION = sql.SQL("""
DO $cdc$
DECLARE
  v_trigger record;
BEGIN
  FOR v_trigger IN
    SELECT t.tgname, t.tgrelid::regclass AS place FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid, pg_extension
    WHERE extname = 'pgq' AND t.tgparentid = 0 AND p.pronamespace = 'cdc'::regnamespace
  LOOP
    EXECUTE format('ALTER TRIGGER %I ON %s DEPENDS ON EXTENSION pgq', v_trigger.tgname, v_trigger.place);
  END LOOP;
END
$cdc$
""")

# PostgreSQL clones row triggers to a new partition as whoever makes it, and asks for that role's right to the function.
_GRANT_TO_OWNERS = sql.SQL("""
DO $cdc$
DECLARE
  v_grant text;
BEGIN
  FOR v_grant IN
    SELECT format('GRANT EXECUTE ON FUNCTION %s TO %s', p.oid::regprocedure, c.relowner::regrole)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE c.relkind = 'p' AND t.tgparentid = 0 AND p.pronamespace = 'cdc'::regnamespace
  LOOP
    EXECUTE v_grant;
  END LOOP;
END
$cdc$
""")

COLUMNS = sql.SQL(
    "(SELECT md5(string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum))"
    " FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)"
)
"""The columns of table ``c`` as one text that differs when they do."""

DEFINITION = sql.SQL(
    "(SELECT md5(coalesce(string_agg(concat_ws(' ', tgname, tgtype, tgattr, tgqual, tgargs, proname, prosrc, prosecdef,"
    " proconfig, proowner::regrole), ', ' ORDER BY tgname), '')) FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid"
    " WHERE tgrelid = c.oid AND tgparentid = 0 AND pronamespace = 'cdc'::regnamespace)"
)
"""Our triggers on table ``c`` and their functions as one text that differs when they do."""

# Functions are replaced, and no table is locked: an ALTER TABLE … DISABLE TRIGGER would queue behind every open writing
# transaction, with all new writers queueing behind it. A setting for the triggers to look at would cost every row.
_DISABLE = sql.SQL("""
CREATE OR REPLACE FUNCTION cdc.disable(why text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $cdc$
DECLARE
  v_function text;
BEGIN
  IF coalesce(btrim(why), '') = '' THEN
    RAISE EXCEPTION 'say why, for those who will read it: SELECT cdc.disable(''…'')';
  END IF;
  FOR v_function IN
    SELECT proname FROM pg_proc WHERE pronamespace = 'cdc'::regnamespace AND prorettype = 'trigger'::regtype
  LOOP
    EXECUTE format('CREATE OR REPLACE FUNCTION cdc.%I() RETURNS trigger LANGUAGE plpgsql AS %L', v_function,
      'BEGIN IF tg_when = ''BEFORE'' THEN IF tg_op = ''DELETE'' THEN RETURN old; END IF; RETURN new; END IF; RETURN NULL; END');
  END LOOP;
  FOR v_function IN
    SELECT format('cdc.%I(%s)', proname, pg_get_function_arguments(oid)) FROM pg_proc
    WHERE pronamespace = 'cdc'::regnamespace AND proname = 'emit' AND prorettype = 'void'::regtype
  LOOP
    EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS void LANGUAGE plpgsql AS ''BEGIN END''', v_function);
  END LOOP;
  INSERT INTO cdc.disabled (reason) VALUES (why) ON CONFLICT DO NOTHING;
  RETURN 'Capture is disabled: changes from now on are not published. To end this: pipeline capture enable SOURCE; then a snapshot.';
END
$cdc$
""")
