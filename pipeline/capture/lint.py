"""What would make capture lose, re-order or break writes, told before it does: at install, daily by the relay, on demand.

A rule is one query over the captured tables. It yields a row per finding: the table (empty when it is about the whole
database), what is wrong, and the SQL that mends it (empty when there is none).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from pipeline.capture import disabling
from pipeline.capture.queue import queue_names
from pipeline.capture.schema import COLUMNS, DEFINITION
from pipeline.capture.session import Connection

Level = Literal["refuse", "warn", "note"]
"""refuse: changes are or will be lost, or writes may fail; warn: they may be; note: worth knowing."""

WIDE_BYTES = 100_000
"""Columns that are wider than this on average are told: their rows are slow to write and may be cut."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one table, or with the source when ``table`` is empty. ``fix`` is SQL or empty."""

    level: Level
    table: str
    what: str
    fix: str

    def __str__(self) -> str:
        where = f"{self.table}: " if self.table else ""
        return f"{self.level}: {where}{self.what}" + (f"; run: {self.fix}" if self.fix else "")


@dataclass(frozen=True, slots=True)
class _Rule:
    level: Level
    query: sql.SQL | sql.Composed


def lint(connection: Connection, tables: Sequence[str]) -> list[Finding]:
    """Everything there is to say about the captured `tables` ("schema.table") of one source, the worst first."""
    names = queue_names(connection)
    if names is None:
        return [Finding("refuse", "", "capture is not installed: there is no queue", "")]
    since = disabling.read(connection)
    rules = list(_TABLES) if since is not None else [*_TABLES, *_TRIGGERS]
    parameters = {
        "tables": list(tables),
        "events": names.events,
        "sequence": names.sequence,
        "wide": WIDE_BYTES,
    }
    found = [Finding("refuse", "", str(since), "")] if since is not None else []
    for rule in rules:
        found += _findings(connection, rule, parameters)
    return sorted(found, key=lambda finding: (_ORDER.index(finding.level), finding.table))


_ORDER: Sequence[Level] = ("refuse", "warn", "note")


def _findings(connection: Connection, rule: _Rule, parameters: dict[str, object]) -> Iterable[Finding]:
    rows = connection.execute(_CAPTURED + rule.query, parameters).fetchall()
    return [Finding(rule.level, table or "", what, fix or "") for table, what, fix in rows]


# `captured`: the tables as they are now; `relation` is null for one that is not there under its name. `parts`: each of
# them, and its partitions.
_CAPTURED = sql.SQL("""
WITH captured AS MATERIALIZED (
  SELECT name, c.oid AS relation, c.relpersistence AS persistence, c.relowner AS owner, c.relkind AS kind
  FROM unnest(%(tables)s::text[]) name
  LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace) ON format('%%s.%%s', n.nspname, c.relname) = name
), parts AS MATERIALIZED (
  SELECT relation, relation AS part FROM captured WHERE relation IS NOT NULL
  UNION SELECT relation, relid FROM captured CROSS JOIN LATERAL pg_partition_tree(relation) WHERE kind = 'p'
)
""")

_GONE = sql.SQL("""
SELECT captured.name,
  CASE WHEN now.oid IS NULL THEN 'does not exist'
       ELSE format('is called %%s now, and is still published as %%s', now.oid::regclass, captured.name) END,
  CASE WHEN now.oid IS NOT NULL
       THEN format('ALTER TABLE %%s RENAME TO %%I', now.oid::regclass, split_part(captured.name, '.', 2)) END
FROM captured LEFT JOIN cdc.captured c ON c.table_name = captured.name LEFT JOIN pg_class now ON now.oid = c.relation
WHERE captured.relation IS NULL
""")

_NO_KEY = sql.SQL("""
SELECT name, 'has no primary key: no change can be told from another row''s',
  format('ALTER TABLE %%s ADD PRIMARY KEY (…)', relation::regclass)
FROM captured WHERE relation IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = relation AND contype = 'p')
""")

_DEFERRABLE = sql.SQL("""
SELECT name, 'its primary key is deferrable: two rows may share a key for a while, and events lose order',
  format('ALTER TABLE %%s DROP CONSTRAINT %%I, ADD %%s', relation::regclass, conname,
    regexp_replace(pg_get_constraintdef(k.oid), ' (NOT )?DEFERRABLE.*$', ''))
FROM captured JOIN pg_constraint k ON conrelid = relation WHERE contype = 'p' AND condeferrable
""")

_UNLOGGED = sql.SQL("""
SELECT name, 'is unlogged: a crash empties it without a trace', format('ALTER TABLE %%s SET LOGGED', relation::regclass)
FROM captured WHERE persistence = 'u'
UNION ALL SELECT name, format('partition %%s is unlogged: a crash empties it without a trace', c.oid::regclass),
  format('ALTER TABLE %%s SET LOGGED', c.oid::regclass)
FROM captured JOIN parts USING (relation) JOIN pg_class c ON c.oid = part AND part <> relation WHERE relpersistence = 'u'
""")

_OTHER_TRIGGERS = sql.SQL("""
SELECT DISTINCT captured.name, format('row trigger "%%s" fires AFTER changes since the last install: when it writes this table,'
    ' events may carry a stale row; the next install captures it strictly', tgname), 'pipeline capture install SOURCE'
FROM captured JOIN cdc.captured was ON was.table_name = captured.name
JOIN parts ON parts.relation = captured.relation JOIN pg_trigger ON tgrelid = part JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE NOT was.strict AND NOT tgisinternal AND tgtype & 1 = 1 AND tgtype & 66 = 0 AND tgenabled <> 'D'
  AND pronamespace <> 'cdc'::regnamespace
""")

_NO_INDEX = sql.SQL("""
SELECT name, format('has no index on "%%s": each change of a parent reads the whole table', lookup),
  format('CREATE INDEX CONCURRENTLY ON %%s (%%I)', captured.relation::regclass, lookup)
FROM captured JOIN cdc.captured was ON was.table_name = name AND was.relation = captured.relation
JOIN pg_attribute a ON a.attrelid = captured.relation AND attname = lookup
WHERE NOT EXISTS (SELECT FROM pg_index WHERE indrelid = captured.relation AND indkey[0] = a.attnum
                  AND indisvalid AND indpred IS NULL)
""")

_CACHE = sql.SQL("""
SELECT '', format('sequence %%s hands out numbers in blocks of %%s: events lose order', seqrelid::regclass, seqcache),
  format('ALTER SEQUENCE %%s CACHE 1', seqrelid::regclass)
FROM pg_sequence WHERE seqrelid = to_regclass(%(sequence)s) AND seqcache > 1
""")

_COLUMNS_CHANGED = sql.SQL("""
SELECT name, 'its columns have changed since the last install: new ones are not captured', 'pipeline capture install SOURCE'
FROM captured JOIN cdc.captured was ON was.table_name = name JOIN pg_class c ON c.oid = captured.relation
WHERE was.columns IS DISTINCT FROM {columns}
""").format(columns=COLUMNS)

_SUBSCRIBED = sql.SQL("""
SELECT DISTINCT name, 'logical replication writes it, and does not fire the trigger',
  format('ALTER TABLE %%s ENABLE ALWAYS TRIGGER %%I', relation::regclass, tgname)
FROM captured JOIN parts USING (relation) JOIN pg_subscription_rel ON srrelid = part
JOIN pg_trigger ON tgrelid = relation JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE pronamespace = 'cdc'::regnamespace AND tgenabled <> 'A'
""")

_REPLICA_ROLES = sql.SQL("""
SELECT '', format('%%s has session_replication_role = %%s by default: it writes without firing triggers', who, value),
  format('ALTER %%s RESET session_replication_role', who)
FROM (
  SELECT concat_ws(' IN ', CASE WHEN setrole <> 0 THEN 'ROLE ' || setrole::regrole END,
                   CASE WHEN setdatabase <> 0 THEN 'DATABASE ' || quote_ident(datname) END) AS who,
         split_part(setting, '=', 2) AS value
  FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase, unnest(setconfig) setting
  WHERE (setdatabase = 0 OR datname = current_database()) AND setting LIKE 'session_replication_role=%%'
) configured WHERE value <> 'origin'
""")

_OWNERS = sql.SQL("""
SELECT '', format('role %%s may log in and owns captured tables (%%s): it could drop or disable their triggers',
                  owner::regrole, string_agg(name, ', ' ORDER BY name)), ''
FROM captured JOIN pg_roles r ON r.oid = owner
WHERE rolcanlogin AND NOT rolsuper AND owner NOT IN (
  SELECT proowner FROM pg_proc WHERE pronamespace = 'cdc'::regnamespace)
GROUP BY owner
""")

_WIDE = sql.SQL("""
SELECT name, format('column "%%s" has %%s bytes on average: each change writes them to the queue, the old ones too', attname, avg_width),
  ''
FROM captured JOIN pg_stats s ON format('%%s.%%s', s.schemaname, s.tablename) = name WHERE avg_width > %(wide)s
""")

_MISSING = sql.SQL("""
SELECT name, 'has none of our triggers: its changes are not captured', 'pipeline capture install SOURCE'
FROM captured WHERE relation IS NOT NULL AND NOT EXISTS (
  SELECT FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
  WHERE tgrelid = relation AND tgtype & 32 = 0 AND pronamespace = 'cdc'::regnamespace)
""")

_DISABLED = sql.SQL("""
SELECT name, format('trigger "%%s" on %%s %%s: changes are lost', tgname, part::regclass,
    CASE tgenabled WHEN 'D' THEN 'is disabled' ELSE 'fires for replication only' END),
  format('ALTER TABLE %%s ENABLE TRIGGER %%I; then pipeline capture snapshot SOURCE', part::regclass, tgname)
FROM captured JOIN parts USING (relation) JOIN pg_trigger ON tgrelid = part JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE pronamespace = 'cdc'::regnamespace AND tgenabled IN ('D', 'R')
""")

_ALTERED = sql.SQL("""
SELECT name, 'its triggers or their functions are not what was installed', 'pipeline capture install SOURCE'
FROM captured JOIN pg_class c ON c.oid = captured.relation LEFT JOIN cdc.captured was ON was.table_name = name
WHERE was.definition IS DISTINCT FROM {definition}
""").format(definition=DEFINITION)

_PARTS = sql.SQL("""
SELECT name, format('partition %%s has no trigger for TRUNCATE', part::regclass), 'pipeline capture install SOURCE'
FROM captured JOIN parts USING (relation) WHERE part <> relation AND NOT EXISTS (
  SELECT FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
  WHERE tgrelid = part AND pronamespace = 'cdc'::regnamespace AND tgtype & 32 <> 0)
""")

# The triggers run as their functions' owner: what it may not do breaks the application's writes.
_RIGHTS = sql.SQL("""
SELECT '', format('role %%s, as which the triggers run, lacks %%s on %%s: writes to captured tables fail', owner, privilege, what),
  format('GRANT %%s ON %%s %%s TO %%s', privilege, kind, what, owner)
FROM (SELECT DISTINCT proowner::regrole AS owner FROM pg_proc
      WHERE pronamespace = 'cdc'::regnamespace AND prosecdef) owners
CROSS JOIN LATERAL (
  SELECT 'SCHEMA' AS kind, 'pgq' AS what, 'USAGE' AS privilege, has_schema_privilege(owner, 'pgq', 'USAGE') AS held
  UNION ALL SELECT 'SEQUENCE', %(sequence)s, 'USAGE', has_sequence_privilege(owner, %(sequence)s, 'USAGE, UPDATE')
  UNION ALL SELECT 'TABLE', 'pgq.queue', 'SELECT', has_table_privilege(owner, 'pgq.queue', 'SELECT')
  UNION ALL SELECT 'TABLE', 'cdc.notices', 'INSERT', has_table_privilege(owner, 'cdc.notices', 'INSERT')
  UNION ALL SELECT 'TABLE', %(events)s || '_' || slot, 'INSERT', has_table_privilege(owner, %(events)s || '_' || slot, 'INSERT')
            FROM generate_series(0, 2) slot
) needed WHERE NOT held
""")

_PARTITION_RIGHTS = sql.SQL("""
SELECT name, format('its owner %%s may not run its trigger: nobody can add a partition', owner::regrole),
  format('GRANT EXECUTE ON FUNCTION %%s TO %%s', p.oid::regprocedure, owner::regrole)
FROM captured JOIN pg_trigger ON tgrelid = relation JOIN pg_proc p ON p.oid = tgfoid
WHERE kind = 'p' AND tgtype & 1 = 1 AND p.pronamespace = 'cdc'::regnamespace
  AND NOT has_function_privilege(owner, p.oid, 'EXECUTE')
""")

_TABLES = (
    _Rule("refuse", _GONE),
    _Rule("refuse", _NO_KEY),
    _Rule("refuse", _DEFERRABLE),
    _Rule("refuse", _UNLOGGED),
    _Rule("refuse", _CACHE),
    _Rule("refuse", _NO_INDEX),
    _Rule("warn", _OTHER_TRIGGERS),
    _Rule("warn", _COLUMNS_CHANGED),
    _Rule("warn", _SUBSCRIBED),
    _Rule("warn", _REPLICA_ROLES),
    _Rule("warn", _WIDE),
    _Rule("note", _OWNERS),
)
_TRIGGERS = (
    _Rule("refuse", _MISSING),
    _Rule("refuse", _DISABLED),
    _Rule("refuse", _ALTERED),
    _Rule("refuse", _RIGHTS),
    _Rule("refuse", _PARTITION_RIGHTS),
    _Rule("warn", _PARTS),
)
