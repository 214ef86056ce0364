"""The captured tables, as installed: what bridges, workers and verify know of the sources without asking them."""

from __future__ import annotations

import msgspec
from psycopg.types.json import Jsonb

from pipeline.control.database import ControlDatabase
from pipeline.domain.table import Table


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


def _definition(table: Table) -> object:
    definition = msgspec.to_builtins(table)
    return {name: value for name, value in definition.items() if name not in ("source", "name")}


def _table(source: str, name: str, definition: dict[str, object]) -> Table:
    columns = [_column(column) for column in _listed(definition["columns"])]
    return msgspec.convert({**definition, "source": source, "name": name, "columns": columns}, Table)


def _column(stored: object) -> object:
    """A column as it is stored now, or as the first version stored it: name, type, nullable."""
    return (
        dict(zip(("name", "type", "nullable"), stored, strict=True)) if isinstance(stored, list) else stored
    )


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
