"""SQL for Redshift, as text: tables and views, and the statements of a load in their order.

Identifiers are validated and quoted. COPY takes no parameters and Redshift reads backslash escapes in literals, so only
texts that need no escaping are put into one.
"""

# Redshift takes no parameters for names: every name below passes `quoted`, every value in COPY `literal`.
# ruff: noqa: S608

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.warehouse.types import MAX_KEY, SinkColumn, SinkTable

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,126}")
_LITERAL = re.compile(r"[A-Za-z0-9_./:=+@,-]+")
STAGED = ("_merchant", "_key", "_source", "_version", "_deleted", "_flags")
"""Our columns in a part, behind the row's; ``_loaded_at`` is Redshift's to set."""
LIVE = ("_merchant", "_version", "_source", "_loaded_at")
STAGE, FRESH, SPARED = "_stage", "_fresh", "_spared"
_OURS = (
    f'"_merchant" VARCHAR(64) NOT NULL, "_key" VARCHAR({MAX_KEY}) NOT NULL, "_source" VARCHAR(64) NOT NULL,'
    ' "_version" BIGINT NOT NULL, "_deleted" BOOLEAN NOT NULL, "_flags" VARCHAR(65535),'
    ' "_loaded_at" TIMESTAMP NOT NULL DEFAULT SYSDATE'
)
_LEDGER = (
    "batch_id VARCHAR(36) NOT NULL, parts INTEGER NOT NULL, rows BIGINT NOT NULL, applied BIGINT NOT NULL,"
    " stale BIGINT NOT NULL, lowest_version BIGINT NOT NULL, highest_version BIGINT NOT NULL,"
    " loaded_at TIMESTAMP NOT NULL DEFAULT SYSDATE"
)


def quoted(*names: str) -> str:
    """A qualified identifier; ValueError for one that Redshift would fold or that needs escaping."""
    for name in names:
        if not _IDENTIFIER.fullmatch(name):
            raise ValueError(f"not an identifier: {name!r}")
    return ".".join(f'"{name}"' for name in names)


def literal(text: str) -> str:
    """A string literal; ValueError for a text that would need escaping."""
    if not _LITERAL.fullmatch(text):
        raise ValueError(f"not fit for a literal: {text!r}")
    return f"'{text}'"


def _listed(names: Iterable[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{quoted(name)}" for name in names)


def _staged(table: SinkTable) -> list[str]:
    return [*(column.name for column in table.columns), *STAGED]


def create_schema(schema: str) -> str:
    """The schema all tables lie in."""
    return f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}"


def create_table(schema: str, table: SinkTable) -> str:
    """The type's table. The row's columns take NULL: a tombstone may have nothing but its key."""
    columns = ", ".join(f"{quoted(column.name)} {column.type.sql}" for column in table.columns)
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(schema, table.type)} ({columns}, {_OURS})"
        ' DISTKEY ("_merchant") COMPOUND SORTKEY ("_merchant", "_key")'
    )


def create_ledger(schema: str, table: SinkTable) -> str:
    """The type's ledger: one of its own, since a shared one makes loads of different types collide (error 1023)."""
    return f"CREATE TABLE IF NOT EXISTS {quoted(schema, table.ledger)} ({_LEDGER}) DISTSTYLE ALL SORTKEY (batch_id)"


def create_live_view(schema: str, table: SinkTable) -> str:
    """The view of the rows that exist, for people."""
    names = _listed([*(column.name for column in table.columns), *LIVE])
    return (
        f"CREATE OR REPLACE VIEW {quoted(schema, table.live_view)} AS"
        f' SELECT {names} FROM {quoted(schema, table.type)} WHERE NOT "_deleted"'
    )


def lock_ledger(schema: str, table: SinkTable) -> str:
    """Loads of one type queue here, before any of them reads; readers of the target are not in the way."""
    return f"LOCK {quoted(schema, table.ledger)}"


def find_in_ledger(schema: str, table: SinkTable) -> str:
    """Parameter: batch id."""
    return f"SELECT applied, stale FROM {quoted(schema, table.ledger)} WHERE batch_id = %s"


def write_ledger(schema: str, table: SinkTable) -> str:
    """Parameters: batch id, parts, rows, applied, stale, lowest and highest version."""
    return (
        f"INSERT INTO {quoted(schema, table.ledger)}"
        " (batch_id, parts, rows, applied, stale, lowest_version, highest_version)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)"
    )


def create_stage(schema: str, table: SinkTable, name: str) -> str:
    """A temporary table like the target, keys and defaults included; it ends with the connection."""
    return f"CREATE TEMP TABLE {quoted(name)} (LIKE {quoted(schema, table.type)} INCLUDING DEFAULTS)"


def copy(table: SinkTable, manifest: str, marker: str, iam_role: str) -> str:
    """Read the batch's files into the stage."""
    return (
        f"COPY {quoted(STAGE)} ({_listed(_staged(table))}) FROM {literal(manifest)} IAM_ROLE {literal(iam_role)}"
        f" FORMAT AS CSV ZSTD MANIFEST NULL AS {literal(marker)}"
        " ROUNDEC TIMEFORMAT 'auto' DATEFORMAT 'auto' COMPUPDATE OFF STATUPDATE OFF"
    )


def keep_newest(table: SinkTable) -> str:
    """One row per sink key, of the highest version: parts of one batch may repeat keys, even versions."""
    names = _listed(_staged(table))
    return (
        f"INSERT INTO {quoted(FRESH)} ({names}) SELECT {names} FROM (SELECT {names}, ROW_NUMBER() OVER"
        f' (PARTITION BY "_merchant", "_key" ORDER BY "_version" DESC) AS "_place" FROM {quoted(STAGE)}) AS ranked'
        ' WHERE "_place" = 1'
    )


def _same_key(table: SinkTable) -> str:
    target, fresh = quoted(table.type), quoted(FRESH)
    return f'{target}."_merchant" = {fresh}."_merchant" AND {target}."_key" = {fresh}."_key"'


def drop_stale(schema: str, table: SinkTable) -> str:
    """Rows the target has at this version or a newer one, deleted ones included, never reach the MERGE."""
    return (
        f"DELETE FROM {quoted(FRESH)} USING {quoted(schema, table.type)}"
        f' WHERE {_same_key(table)} AND {quoted(FRESH)}."_version" <= {quoted(table.type)}."_version"'
    )


def count_fresh() -> str:
    """How many rows the MERGE will apply."""
    return f"SELECT COUNT(*) FROM {quoted(FRESH)}"


def merge(schema: str, table: SinkTable) -> str:
    """Write what is left. Redshift's MERGE takes neither a condition nor a second action: hence the stage is clean."""
    target, fresh = quoted(schema, table.type), quoted(FRESH)
    names = _staged(table)
    changed = [name for name in names if name not in ("_merchant", "_key")]
    assignments = ", ".join(f"{quoted(name)} = {fresh}.{quoted(name)}" for name in changed)
    return (
        f"MERGE INTO {target} USING {fresh} ON {_same_key(table)}"
        f' WHEN MATCHED THEN UPDATE SET {assignments}, "_loaded_at" = SYSDATE'
        f' WHEN NOT MATCHED THEN INSERT ({_listed(names)}, "_loaded_at")'
        f" VALUES ({_listed(names, f'{fresh}.')}, SYSDATE)"
    )


def create_spared() -> str:
    """A temporary table of sink keys that a sweep leaves alone; it ends with the connection."""
    return f'CREATE TEMP TABLE {quoted(SPARED)} ("_merchant" VARCHAR(64) NOT NULL, "_key" VARCHAR({MAX_KEY}) NOT NULL)'


def insert_spared(count: int) -> str:
    """Parameters: merchant and key, `count` times."""
    return f'INSERT INTO {quoted(SPARED)} ("_merchant", "_key") VALUES {", ".join(["(%s, %s)"] * count)}'


def sweep(schema: str, table: SinkTable, *, of_one: bool, sparing: bool) -> str:
    """Older living rows of a source become tombstones. Parameters: version, source, version, and with `of_one` merchant."""
    target = quoted(schema, table.type)
    where = '"_source" = %s AND NOT "_deleted" AND "_version" < %s'
    if of_one:
        where += ' AND "_merchant" = %s'
    if sparing:
        here, spared = quoted(table.type), quoted(SPARED)
        where += (
            f' AND NOT EXISTS (SELECT 1 FROM {spared} WHERE {spared}."_merchant" = {here}."_merchant"'
            f' AND {spared}."_key" = {here}."_key")'
        )
    return f'UPDATE {target} SET "_deleted" = TRUE, "_version" = %s, "_loaded_at" = SYSDATE WHERE {where}'


def find_columns() -> str:
    """Columns of all tables of a schema. Parameter: the schema."""
    return (
        "SELECT table_name, column_name, data_type, character_maximum_length, numeric_precision, numeric_scale"
        " FROM svv_all_columns WHERE schema_name = %s AND database_name = current_database()"
    )


def find_load_error() -> str:
    """What this session's last failed COPY stumbled over; never the value itself."""
    return (
        "SELECT TRIM(colname), err_code, TRIM(err_reason), TRIM(filename), line_number FROM stl_load_errors"
        " WHERE session = pg_backend_pid() ORDER BY starttime DESC LIMIT 1"
    )


def page(schema: str, table: SinkTable, *, of_one: bool, first: bool, size: int) -> str:
    """Rows, tombstones too, in the order of the sink key: the first ones, or those behind a sink key.

    Parameters: merchant, merchant, key; with `of_one` merchant, key; of the first page none, or the one merchant.
    Redshift has no row comparison.
    """
    if of_one:
        where = ' WHERE "_merchant" = %s' + ("" if first else ' AND "_key" > %s')
    else:
        where = "" if first else ' WHERE ("_merchant" > %s OR ("_merchant" = %s AND "_key" > %s))'
    columns = [_read(column) for column in table.columns]
    names = ", ".join(
        ['"_merchant"', '"_key"', '"_version"', '"_deleted"', '"_flags"', '"_source"', *columns]
    )
    return (
        f'SELECT {names} FROM {quoted(schema, table.type)}{where} ORDER BY "_merchant", "_key" LIMIT {size:d}'
    )


def _read(column: SinkColumn) -> str:
    name = quoted(column.name)
    # The driver reads TIME by way of a float, a microsecond low half of the time.
    return f"CAST({name} AS VARCHAR(32))" if column.type.kind == "time" else name
