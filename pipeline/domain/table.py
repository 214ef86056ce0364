"""A captured table as the sinks see it: columns with PostgreSQL types, key, merchant column, type."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Column:
    """One captured column; ``type`` is PostgreSQL's ``format_type``, for example ``numeric(18,2)``."""

    name: str
    type: str
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """One captured table of one source; tables of equal ``type`` in several sources are shards of one table."""

    source: str
    name: str
    type: str
    merchant_column: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @cached_property
    def shape(self) -> str:
        """Hash of the column names and types: equal shapes can be loaded together."""
        text = "\n".join(f"{column.name} {column.type}" for column in self.columns)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def by_type(tables: Iterable[Table]) -> Mapping[str, Table]:
    """One table per type; ConfigurationError when shards of one type differ in columns or key."""
    types: dict[str, Table] = {}
    problems = []
    for table in tables:
        first = types.setdefault(table.type, table)
        if (first.shape, first.key) != (table.shape, table.key):
            problems.append(
                f'type "{table.type}": {table.source} {table.name} and {first.source} {first.name} differ in columns '
                "or primary key; give one of them a type of its own"
            )
    if problems:
        raise ConfigurationError(tuple(problems))
    return types
