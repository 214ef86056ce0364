"""PostgreSQL's column types in Redshift: exact, or flagged, never silently different.

Two choices worth knowing. A numeric without bounds, or beyond NUMERIC(38,37), becomes VARCHAR: its digits arrive as
they are, where any fixed scale would round some of them. Times with a zone become VARCHAR too, because Redshift's
TIMETZ forgets the offset.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from pipeline.domain.table import Table
from pipeline.errors import ConfigurationError

Kind = Literal[
    "integer", "numeric", "digits", "float", "boolean", "text", "json", "bytes", "date", "timestamp",
    "timestamptz", "time", "other",
]  # fmt: skip

MAX_TEXT = 65535
MAX_BYTES = 1_024_000
MAX_KEY = 1024
_MAX_DIGITS = 1024
_MAX_PRECISION, _MAX_SCALE = 38, 37


@dataclass(frozen=True, slots=True)
class SinkType:
    """How a column's values are checked, its type in Redshift, and its limits.

    ``size`` is bytes for texts and bytes, bits for integers, precision for NUMERIC; ``scale`` is NUMERIC's.
    """

    kind: Kind
    sql: str
    size: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True)
class SinkColumn:
    """One column: its name at the source, its name in Redshift (folded to lower case, without what needs quoting), its types."""

    source_name: str
    name: str
    source_type: str
    type: SinkType


@dataclass(frozen=True, slots=True)
class SinkTable:
    """A type's table in Redshift. Sink key = (``_merchant``, ``_key``)."""

    type: str
    shape: str
    columns: tuple[SinkColumn, ...]

    @property
    def live_view(self) -> str:
        """The view of rows that exist."""
        return f"{self.type}_live"

    @property
    def ledger(self) -> str:
        """The table of batches that are loaded."""
        return f"_ledger_{self.type}"


RESERVED = ("_merchant", "_key", "_source", "_version", "_deleted", "_loaded_at", "_flags")
_PLAIN: dict[str, SinkType] = {
    "smallint": SinkType("integer", "SMALLINT", 16),
    "integer": SinkType("integer", "INTEGER", 32),
    "bigint": SinkType("integer", "BIGINT", 64),
    "real": SinkType("float", "REAL", 32),
    "double precision": SinkType("float", "DOUBLE PRECISION", 64),
    "boolean": SinkType("boolean", "BOOLEAN"),
    "uuid": SinkType("text", "VARCHAR(36)", 36),
    "date": SinkType("date", "DATE"),
    "timestamp without time zone": SinkType("timestamp", "TIMESTAMP"),
    "timestamp with time zone": SinkType("timestamptz", "TIMESTAMPTZ"),
    "time without time zone": SinkType("time", "TIME"),
    "json": SinkType("json", "SUPER"),
    "jsonb": SinkType("json", "SUPER"),
    "bytea": SinkType("bytes", f"VARBYTE({MAX_BYTES})", MAX_BYTES),
    "text": SinkType("text", f"VARCHAR({MAX_TEXT})", MAX_TEXT),
}
_DIGITS = SinkType("digits", f"VARCHAR({_MAX_DIGITS})", _MAX_DIGITS)
_MODIFIER = re.compile(r"\((-?\d+)(?:,(-?\d+))?\)")
_UNFIT = re.compile(r"[^a-z0-9_]")
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,126}")


def sink_type(source_type: str) -> SinkType:
    """The type in Redshift of a column that PostgreSQL's ``format_type`` calls `source_type`."""
    found = _MODIFIER.search(source_type)
    base = _MODIFIER.sub("", source_type)
    if base == "numeric":
        return _numeric(int(found[1]), int(found[2] or 0)) if found else _DIGITS
    if base in ("character varying", "character") and found:
        size = min(4 * int(found[1]), MAX_TEXT)
        return SinkType("text", f"VARCHAR({size})", size)
    if base in ("character varying", "character"):
        return _PLAIN["text"]
    return _PLAIN.get(base) or SinkType("other", f"VARCHAR({MAX_TEXT})", MAX_TEXT)


def _numeric(precision: int, scale: int) -> SinkType:
    if scale < 0:
        precision, scale = precision - scale, 0
    precision = max(precision, scale)
    if precision > _MAX_PRECISION or scale > _MAX_SCALE:
        return _DIGITS
    return SinkType("numeric", f"NUMERIC({precision},{scale})", precision, scale)


def _name(name: str) -> str:
    """The column's name in Redshift: folded; what needs quoting there becomes readable and stays unique."""
    folded = name.lower()
    if _IDENTIFIER.fullmatch(folded):
        return folded
    return f"c_{_UNFIT.sub('_', folded)[:100]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def sink_table(table: Table) -> SinkTable:
    """The table in Redshift for a captured table; ConfigurationError names what Redshift cannot have."""
    names = [_name(column.name) for column in table.columns]
    problems = [
        f"{table.source} {table.name}: the warehouse cannot have a column named {name!r}"
        for name in names
        if not _IDENTIFIER.fullmatch(name) or name in RESERVED
    ]
    problems += [
        f'{table.source} {table.name}: columns differ only in case, which Redshift ignores: "{name}"'
        for name, count in Counter(names).items()
        if count > 1
    ]
    if not _IDENTIFIER.fullmatch(table.type) or table.type.startswith("_"):
        problems.append(
            f"{table.source} {table.name}: the warehouse cannot have a table named {table.type!r}"
        )
    if problems:
        raise ConfigurationError(tuple(problems))
    columns = tuple(
        SinkColumn(column.name, name, column.type, sink_type(column.type))
        for column, name in zip(table.columns, names, strict=True)
    )
    return SinkTable(table.type, table.shape, columns)
