"""Schema, tables, ledgers and live views in Redshift: made by ``pipeline migrate``, compared at every check.

This version adds nothing to a table that exists: a column that is missing or of another type is reported, because
loading into it would fail or, worse, round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

from pipeline.domain.table import Table, by_type
from pipeline.errors import ConfigurationError, PermanentError
from pipeline.settings import Settings
from pipeline.warehouse import statements
from pipeline.warehouse.redshift import Session, session
from pipeline.warehouse.types import RESERVED, SinkColumn, SinkTable, sink_table

_SHOWN = {
    "BIGINT": "bigint",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "DOUBLE PRECISION": "double precision",
    "INTEGER": "integer",
    "REAL": "real",
    "SMALLINT": "smallint",
    "SUPER": "super",
    "TIME": "time without time zone",
    "TIMESTAMP": "timestamp without time zone",
    "TIMESTAMPTZ": "timestamp with time zone",
}


class _Found(NamedTuple):
    """A column as SVV_ALL_COLUMNS shows it."""

    type: str
    length: int | None
    precision: int | None
    scale: int | None


def sink_tables(tables: Iterable[Table]) -> list[SinkTable]:
    """One table per type, by name; ConfigurationError for everything that Redshift cannot have."""
    problems: list[str] = []
    result: list[SinkTable] = []
    for _, table in sorted(by_type(tables).items()):
        try:
            result.append(sink_table(table))
        except ConfigurationError as error:
            problems += error.problems
    views = {table.live_view for table in result}
    problems += [
        f'type "{table.type}" has the name of another\'s view' for table in result if table.type in views
    ]
    if problems:
        raise ConfigurationError(tuple(problems))
    return result


def ensure_tables(settings: Settings, tables: Iterable[Table]) -> list[str]:
    """Make what is missing, and return its names; PermanentError when a table that exists has other columns."""
    schema, wanted = settings.warehouse_schema, sink_tables(tables)
    with _session(settings) as warehouse:
        before = _columns(warehouse, schema)
        problems = [problem for table in wanted for problem in _differences(before, table)]
        if problems:
            raise PermanentError(
                "warehouse: " + "; ".join(problems), hint="drop or rename the table, then snapshot"
            )
        warehouse.run(statements.create_schema(schema))
        for table in wanted:
            warehouse.run(statements.create_table(schema, table))
            warehouse.run(statements.create_ledger(schema, table))
            warehouse.run(statements.create_live_view(schema, table))
    names = [name for table in wanted for name in (table.type, table.ledger, table.live_view)]
    return [f"{schema}.{name}" for name in names if name not in before]


def check_tables(settings: Settings, tables: Iterable[Table]) -> list[str]:
    """What is missing or different in Redshift, one sentence each; empty when all is well."""
    wanted = sink_tables(tables)
    with _session(settings) as warehouse:
        found = _columns(warehouse, settings.warehouse_schema)
    return [problem for table in wanted for problem in _problems(found, table)]


def _session(settings: Settings) -> AbstractContextManager[Session]:
    return session(settings.environment.redshift_url.get_secret_value(), autocommit=True)


def _columns(warehouse: Session, schema: str) -> Mapping[str, Mapping[str, _Found]]:
    """All relations of the schema with their columns."""
    found: dict[str, dict[str, _Found]] = {}
    for relation, column, *described in warehouse.rows(statements.find_columns(), (schema,)):
        found.setdefault(relation, {})[column] = _Found(*described)
    return found


def _problems(found: Mapping[str, Mapping[str, _Found]], table: SinkTable) -> list[str]:
    missing = [name for name in (table.type, table.ledger, table.live_view) if name not in found]
    if missing:
        return [f"{name} is missing, run: pipeline migrate" for name in missing]
    return _differences(found, table)


def _differences(found: Mapping[str, Mapping[str, _Found]], table: SinkTable) -> list[str]:
    """Columns that are missing or of another type, of a table that exists."""
    if table.type not in found:
        return []
    there = found[table.type]
    names = [column.name for column in table.columns]
    absent = [name for name in (*names, *RESERVED) if name not in there]
    different = [
        f"{table.type}.{column.name} is {_described(there[column.name])}, must be {column.type.sql}"
        for column in table.columns
        if column.name in there and not _matches(there[column.name], column)
    ]
    return [f"{table.type} has no column {name}" for name in absent] + different


def _matches(found: _Found, column: SinkColumn) -> bool:
    kind, sql = column.type.kind, column.type.sql
    if kind == "numeric":
        return (found.type, found.precision, found.scale) == ("numeric", column.type.size, column.type.scale)
    if sql.startswith("VARCHAR"):
        return found.type == "character varying" and (found.length or 0) >= column.type.size
    return found.type == "binary varying" if kind == "bytes" else found.type == _SHOWN[sql]


def _described(found: _Found) -> str:
    if found.type == "numeric":
        return f"NUMERIC({found.precision},{found.scale})"
    return f"{found.type}({found.length})" if found.length else found.type
