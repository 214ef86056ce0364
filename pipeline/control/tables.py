"""The captured tables, as installed: what bridges, workers and verify know of the sources without asking them."""

from __future__ import annotations

import msgspec
from psycopg.types.json import Jsonb

from pipeline.control.database import ControlDatabase
from pipeline.domain.table import Column, Table


def store(database: ControlDatabase, source: str, tables: list[Table]) -> None:
    """Replace what is known of one source."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM tables WHERE source = %s", (source,))
        for table in tables:
            connection.execute(
                "INSERT INTO tables (source, name, definition) VALUES (%s, %s, %s)",
                (source, table.name, Jsonb(_definition(table))),
            )


def load(database: ControlDatabase) -> list[Table]:
    """All captured tables, ordered by source and name."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT source, name, definition FROM tables ORDER BY source, name"
        ).fetchall()
    return [_table(source, name, definition) for source, name, definition in rows]


def _definition(table: Table) -> dict[str, object]:
    return {
        "type": table.type,
        "merchant_column": table.merchant_column,
        "key": list(table.key),
        "columns": [[column.name, column.type, column.nullable] for column in table.columns],
    }


def _table(source: str, name: str, definition: dict[str, object]) -> Table:
    fields = msgspec.convert(definition, _Definition)
    columns = tuple(Column(*column) for column in fields.columns)
    return Table(source, name, fields.type, fields.merchant_column, tuple(fields.key), columns)


class _Definition(msgspec.Struct):
    type: str
    merchant_column: str
    key: list[str]
    columns: list[tuple[str, str, bool]]
