"""COPY's conversion, a column at a time: CSV fields to the text PostgreSQL's COPY takes.

One pattern over all values of a column decides whether they can pass as they are, which is the usual case
and several times faster than a call per value; if not, each value is converted by itself, and the first
bad one raises. NULLs stay the marker that the COPY statement names: PostgreSQL's COPY is told of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from devstack.redshift import conversions
from devstack.redshift.conversions import BadValue, Rule

_INTEGERS = ("int2", "int4", "int8")
_SIMPLE = {
    "bool": conversions.booleans,
    "date": conversions.dates,
    "time": conversions.times,
    "jsonb": conversions.supers,
}


@dataclass(frozen=True, slots=True)
class Column:
    """A target column: PostgreSQL's type name and modifier, NOT NULL, and its limit in bytes."""

    name: str
    type: str
    modifier: int = -1
    not_null: bool = False
    max_bytes: int | None = None

    @property
    def redshift_type(self) -> str:
        """The name STL_LOAD_ERRORS shows."""
        return {"jsonb": "super", "bytea": "varbyte"}.get(self.type, self.type)


@dataclass(frozen=True, slots=True)
class Options:
    """What the COPY statement says about conversion."""

    null: str
    round_decimals: bool
    any_timestamp: bool


class Converter:
    """Converts the values of one column."""

    def __init__(self, column: Column, options: Options) -> None:
        rule = _rule(column, options)
        self._convert, self._null, self._not_null = rule.convert, options.null, column.not_null
        self._empty_is_null = column.type != "varchar"
        null = "" if column.not_null else f"|{re.escape(options.null)}"
        pattern = rf"(?:(?:{rule.usual}{null})\n)*+"
        self._usual = None if rule.usual is None else re.compile(pattern, re.ASCII)

    def convert(self, values: Sequence[str]) -> Sequence[str]:
        """All values, NULLs included. Raises BadValue for the first one that is refused."""
        if self._usual is not None:
            joined = "\n".join(values) + "\n"
            if self._usual.fullmatch(joined) and joined.count("\n") == len(values):
                return values
        return self._one_by_one(values)

    def _one_by_one(self, values: Sequence[str]) -> list[str]:
        converted: list[str] = []
        try:
            for value in values:
                is_null = value == self._null or (not value and self._empty_is_null)
                converted.append(self._missing() if is_null else self._convert(value))
        except BadValue as bad:
            raise BadValue(bad.code, bad.reason, len(converted)) from None
        return converted

    def _missing(self) -> str:
        if self._not_null:
            raise BadValue(1213, "Missing data for not-null field")
        return self._null


def _rule(column: Column, options: Options) -> Rule:
    if column.type == "varchar":
        return conversions.strings(column.max_bytes or column.modifier - 4)
    if column.type in _INTEGERS:
        return conversions.integers(column.type)
    if column.type == "numeric":
        return conversions.decimals(column.modifier, round_up=options.round_decimals)
    if column.type in ("float4", "float8"):
        return conversions.floats(column.type)
    if column.type in ("timestamp", "timestamptz"):
        return conversions.timestamps(column.type, any_format=options.any_timestamp)
    if column.type == "bytea":
        return conversions.varbytes(column.max_bytes or 0)
    return _SIMPLE[column.type]()
