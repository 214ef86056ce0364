"""A captured table as the sinks see it: columns with PostgreSQL types, key, merchant, type."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pipeline.errors import ConfigurationError

Rule = Literal["hash", "mask", "last4"]
"""What is captured instead of a column's value."""


@dataclass(frozen=True, slots=True)
class Column:
    """One captured column; ``type`` is PostgreSQL's ``format_type``, for example ``numeric(18,2)``.

    It is the type in which sinks see the column. ``stored`` is its type in the source where that is another one: enums,
    ranges, composites and the like travel as text, arrays as lists of texts, and so do values rewritten by a ``rule``.
    """

    name: str
    type: str
    nullable: bool = True
    stored: str = ""
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """The merchant of a row is that of the row of ``table`` whose ``key`` its column ``on`` holds."""

    table: str
    on: str
    key: Column
    merchant: Column


@dataclass(frozen=True)
class Table:
    """One captured table of one source; tables of equal ``type`` in several sources are shards of one table.

    Its merchant stands in ``merchant_column``, or in ``parent``; with neither, its rows belong to ``_<source>``.
    ``strict``: events show the row as it stands when they are written, because other triggers may have changed it since.
    ``by_statement``: one trigger call captures all rows of a statement.
    """

    source: str
    name: str
    type: str
    merchant_column: str | None
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    parent: Parent | None = None
    strict: bool = False
    by_statement: bool = False

    @property
    def owned(self) -> bool:
        """True when each of its rows should have a merchant."""
        return self.merchant_column is not None or self.parent is not None

    def column(self, name: str) -> Column:
        """The column of this name."""
        return next(column for column in self.columns if column.name == name)

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
