"""The tables of a database as a proposal needs them: columns, keys, and which table's rows they point at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.capture.session import Connection


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key of one column to the one column of another table's primary key."""

    column: str
    table: str
    required: bool


@dataclass(frozen=True, slots=True)
class Found:
    """One table: ``columns`` are names with their types, ``key`` is the primary key, ``rows`` the planner's estimate."""

    name: str
    columns: Sequence[tuple[str, str]]
    key: Sequence[str]
    references: Sequence[Reference]
    rows: int

    def has(self, column: str) -> bool:
        """True when it has that column."""
        return any(name == column for name, _ in self.columns)


def inventory(connection: Connection) -> list[Found]:
    """Every table that is nobody's extension, no partition and not PgQ's or ours; views and foreign tables are none."""
    rows = connection.execute(_TABLES).fetchall()
    references: dict[int, list[Reference]] = {}
    for oid, *reference in connection.execute(_REFERENCES):
        references.setdefault(oid, []).append(Reference(*reference))
    return [
        Found(name, list(zip(names, types, strict=True)), key, references.get(oid, []), rows_)
        for oid, name, names, types, key, rows_ in rows
    ]


_TABLES = """
SELECT c.oid, n.nspname || '.' || c.relname,
  ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
  ARRAY(SELECT format_type(atttypid, NULL) FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
  ARRAY(SELECT attname::text FROM pg_constraint CROSS JOIN unnest(conkey) WITH ORDINALITY k(number, place)
        JOIN pg_attribute ON attrelid = conrelid AND attnum = number WHERE conrelid = c.oid AND contype = 'p'
        ORDER BY place),
  greatest(c.reltuples, 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgq', 'cdc')
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
ORDER BY 2
"""

_REFERENCES = """
SELECT f.conrelid, a.attname, n.nspname || '.' || c.relname, a.attnotnull
FROM pg_constraint f
JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_constraint k ON k.conrelid = f.confrelid AND k.contype = 'p' AND k.conkey = f.confkey
WHERE f.contype = 'f' AND cardinality(f.conkey) = 1 AND f.conrelid <> f.confrelid
ORDER BY f.conrelid, a.attnotnull DESC, a.attnum
"""
