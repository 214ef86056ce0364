"""Redshift's column types and how PostgreSQL stores them here."""

from __future__ import annotations

from dataclasses import dataclass

from devstack.redshift.errors import SqlError, not_covered
from devstack.redshift.tokens import Reader

MAX_VARCHAR = 65535
MAX_VARBYTE = 16777216
_DEFAULT_VARCHAR, _DEFAULT_VARBYTE = 256, 64000
_MAX_PRECISION, _DEFAULT_PRECISION = 38, 18
_MAX_SCALE = 37

_PLAIN = {
    "SMALLINT": ("smallint", "int2"),
    "INT2": ("smallint", "int2"),
    "INTEGER": ("integer", "int4"),
    "INT": ("integer", "int4"),
    "INT4": ("integer", "int4"),
    "BIGINT": ("bigint", "int8"),
    "INT8": ("bigint", "int8"),
    "REAL": ("real", "float4"),
    "FLOAT4": ("real", "float4"),
    "FLOAT": ("double precision", "float8"),
    "FLOAT8": ("double precision", "float8"),
    "BOOLEAN": ("boolean", "bool"),
    "BOOL": ("boolean", "bool"),
    "DATE": ("date", "date"),
    "TIMESTAMPTZ": ("timestamptz", "timestamptz"),
    "SUPER": ("super", "jsonb"),
}
_REFUSED = frozenset(
    [
        "JSON",
        "JSONB",
        "UUID",
        "BYTEA",
        "SERIAL",
        "BIGSERIAL",
        "SMALLSERIAL",
        "XML",
        "INET",
        "CIDR",
        "MACADDR",
        "MONEY",
        "BIT",
        "TSVECTOR",
        "POINT",
        "HSTORE",
        "INT4RANGE",
        "TSTZRANGE",
        "CITEXT",
        "OID",
        "XID",
        "NAME",
    ]
)
_NOT_COVERED = frozenset(
    [
        "CHAR",
        "CHARACTER",
        "NCHAR",
        "BPCHAR",
        "TIMETZ",
        "HLLSKETCH",
        "GEOMETRY",
        "GEOGRAPHY",
        "INTERVAL",
        "INTERVALY2M",
        "INTERVALD2S",
    ]
)


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A type in Redshift's words, in PostgreSQL's, and its limit in bytes where it has one."""

    redshift: str
    postgres: str
    max_bytes: int | None = None


def read_type(reader: Reader) -> ColumnType:
    """The type at the cursor. Raises SqlError for types Redshift lacks and for lengths it refuses."""
    word = _type_word(reader)
    arguments = _arguments(reader)
    if word in _PLAIN and not arguments:
        return ColumnType(*_PLAIN[word])
    if word in ("NUMERIC", "DECIMAL"):
        return _numeric(arguments)
    if word in ("VARCHAR", "NVARCHAR"):
        size = _length(arguments, _DEFAULT_VARCHAR, MAX_VARCHAR, "varchar")
        return ColumnType("varchar", f"varchar({size})", size)
    if word == "TEXT" and not arguments:
        return ColumnType("varchar", f"varchar({_DEFAULT_VARCHAR})", _DEFAULT_VARCHAR)
    if word in ("VARBYTE", "VARBINARY"):
        size = _length(arguments, _DEFAULT_VARBYTE, MAX_VARBYTE, "varbyte")
        return ColumnType("varbyte", "bytea", size)
    if word in ("TIMESTAMP", "TIME") and not arguments:
        return _time(reader, word)
    if word in _NOT_COVERED:
        raise not_covered(f"type {word.lower()}")
    if word in _REFUSED:
        raise SqlError(f'unsupported type "{word.lower()}"', "0A000")
    raise SqlError(f'type "{word.lower()}" does not exist', "42704")


def _type_word(reader: Reader) -> str:
    for words, alias in (
        (("CHARACTER", "VARYING"), "VARCHAR"),
        (("BINARY", "VARYING"), "VARBYTE"),
        (("DOUBLE", "PRECISION"), "FLOAT8"),
    ):
        if reader.accept(*words):
            return alias
    return reader.next().word


def _arguments(reader: Reader) -> list[str]:
    if reader.peek() != "(":
        return []
    start, end = reader.group()
    return [reader.word(first) for first, _ in reader.split(start, end)]


def _numeric(arguments: list[str]) -> ColumnType:
    precision = int(arguments[0]) if arguments else _DEFAULT_PRECISION
    scale = int(arguments[1]) if len(arguments) > 1 else 0
    if not 1 <= precision <= _MAX_PRECISION:
        raise SqlError(f"NUMERIC precision {precision} must be between 1 and {_MAX_PRECISION}", "22023")
    if not 0 <= scale <= min(precision, _MAX_SCALE):
        raise SqlError(f"NUMERIC scale {scale} must be between 0 and precision {precision}", "22023")
    return ColumnType("numeric", f"numeric({precision},{scale})")


def _length(arguments: list[str], default: int, largest: int, name: str) -> int:
    if arguments == ["MAX"]:
        return largest
    size = int(arguments[0]) if arguments else default
    if not 1 <= size <= largest:
        raise SqlError(f"length for type {name} cannot exceed {largest}", "22023")
    return size


def _time(reader: Reader, word: str) -> ColumnType:
    if reader.accept("WITH", "TIME", "ZONE"):
        if word == "TIME":
            raise not_covered("type timetz")
        return ColumnType("timestamptz", "timestamptz")
    reader.accept("WITHOUT", "TIME", "ZONE")
    return ColumnType(word.lower(), word.lower())
