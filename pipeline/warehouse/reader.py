"""Reading the warehouse back, for verify: every row and tombstone, in the columns it is stored in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pipeline.control import tables
from pipeline.control.database import ControlDatabase
from pipeline.domain.canonical import Encoded
from pipeline.domain.table import by_type
from pipeline.errors import PermanentError
from pipeline.settings import Settings
from pipeline.warehouse import statements
from pipeline.warehouse.redshift import Session, session
from pipeline.warehouse.rows import source_key
from pipeline.warehouse.types import SinkColumn, SinkTable, sink_table

_PAGE = 5000


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row as Redshift holds it. ``row`` is by the source's column names, fit for ``domain.canonical``.

    ``flags``: columns that do not hold the source's value, because Redshift cannot; they are NULL or cut.
    """

    merchant: str
    key: str
    version: int
    deleted: bool
    row: dict[str, Any]
    flags: frozenset[str]
    source: str


def scan(
    settings: Settings, database: ControlDatabase, type_: str, merchant: str | None = None
) -> Iterator[StoredRow]:
    """All rows of a type, tombstones too, or those of one merchant, in pages by sink key.

    Each page is a transaction of its own: a row that changes meanwhile comes in one state or the other, once.
    """
    definition = by_type(tables.load(database)).get(type_)
    if definition is None:
        raise PermanentError(f'no captured table has type "{type_}"')
    table = sink_table(definition)
    read = _reader(table)
    with session(settings.environment.redshift_url.get_secret_value(), autocommit=True) as warehouse:
        for values in _pages(warehouse, settings.warehouse_schema, table, merchant):
            yield read(values)


def _pages(warehouse: Session, schema: str, table: SinkTable, merchant: str | None) -> Iterator[list[Any]]:
    of_one = merchant is not None
    rows = warehouse.rows(
        statements.page(schema, table, of_one=of_one, first=True, size=_PAGE), (merchant,) if of_one else ()
    )
    following = statements.page(schema, table, of_one=of_one, first=False, size=_PAGE)
    while True:
        yield from rows
        if len(rows) < _PAGE:
            return
        last, key = rows[-1][0], rows[-1][1]
        rows = warehouse.rows(following, (last, key) if of_one else (last, last, key))


def _reader(table: SinkTable) -> Callable[[list[Any]], StoredRow]:
    names = [column.source_name for column in table.columns]
    texts = [_text_of(column) for column in table.columns]
    by_folded = {column.name: column.source_name for column in table.columns}

    def read(values: list[Any]) -> StoredRow:
        merchant, key, version, deleted, flags, source, *columns = values
        row = {
            name: None if value is None else text(value)
            for name, text, value in zip(names, texts, columns, strict=True)
        }
        flagged = frozenset(by_folded[name] for name in flags.split(",")) if flags else frozenset()
        return StoredRow(merchant, source_key(key), int(version), bool(deleted), row, flagged, source or "")

    return read


def _text_of(column: SinkColumn) -> Callable[[Any], Any]:
    # An array's JSON is kept as text.
    return Encoded if column.type.kind == "json" or column.source_type.endswith("[]") else _text


def _text(value: Any) -> str:
    """Decimals exact, booleans true and false, doubles as Python's shortest text, timestamps in ISO 8601."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, (datetime, date)) else str(value)
