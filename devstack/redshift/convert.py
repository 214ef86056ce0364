"""COPY's conversions: the text of a CSV field to the text PostgreSQL's COPY takes, by Redshift's rules.

Columns are converted whole. One pattern over all values of a column decides whether they can pass as they
are, which is the usual case and several times faster than a call per value; if not, each value is looked
at by itself, and the first bad one raises.
"""

from __future__ import annotations

import decimal
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import msgspec

NULL = r"\N"  # PostgreSQL's COPY
_MAX_SUPER, _MAX_SUPER_STRING = 16_000_000, 65_535
_EXACT = decimal.Context(prec=100)

_DAY = (
    r"(?!0000)\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)"
    r"|(?:0[13578]|1[02])-31|02-29)"
)
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_OFFSET = r"(?:[+-](?:0\d|1[0-5])(?::?[0-5]\d)?)"
_INTEGER_BITS = {"int2": 16, "int4": 32, "int8": 64}
_INTEGER_NAMES = {"int2": "Short", "int4": "Integer", "int8": "Long"}
_TRUE, _FALSE = frozenset(("t", "true", "y", "yes", "1")), frozenset(("f", "false", "n", "no", "0"))
_ESCAPED = re.compile(r"[\\\n\t\r]")
_ESCAPES = {"\\": r"\\", "\n": r"\n", "\t": r"\t", "\r": r"\r"}


class BadValue(Exception):
    """A value COPY refuses: STL_LOAD_ERRORS' code and reason, and the row it was found in."""

    def __init__(self, code: int, reason: str, index: int = 0) -> None:
        super().__init__(reason)
        self.code, self.reason, self.index = code, reason, index


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


Bulk = Callable[[Sequence[str]], list[str]]


class Converter:
    """Converts the values of one column."""

    def __init__(self, column: Column, options: Options) -> None:
        self._column, self._null = column, options.null
        self._empty_is_null = column.type != "varchar"
        self._bulk = _bulk(column, options)

    def convert(self, values: Sequence[str]) -> list[str]:
        """All values, NULLs included. Raises BadValue for the first one that is refused."""
        if not (self._null in values or (self._empty_is_null and "" in values)):
            return self._bulk(values)
        if self._column.not_null:
            raise BadValue(1213, "Missing data for not-null field", self._nulls(values).index(True))
        nulls = self._nulls(values)
        try:
            converted = iter(self._bulk([v for v, is_null in zip(values, nulls, strict=True) if not is_null]))
        except BadValue as bad:
            position = [i for i, is_null in enumerate(nulls) if not is_null][bad.index]
            raise BadValue(bad.code, bad.reason, position) from None
        return [NULL if is_null else next(converted) for is_null in nulls]

    def _nulls(self, values: Sequence[str]) -> list[bool]:
        null = self._null
        if self._empty_is_null:
            return [not value or value == null for value in values]
        return [value == null for value in values]


def _bulk(column: Column, options: Options) -> Bulk:
    if column.type == "varchar":
        return _strings(column.max_bytes or column.modifier - 4)
    if column.type in _INTEGER_BITS:
        return _integers(column.type)
    if column.type == "numeric":
        return _decimals(column.modifier, round_up=options.round_decimals)
    if column.type in ("float4", "float8"):
        return _floats(column.type)
    if column.type in ("timestamp", "timestamptz"):
        return _timestamps(column.type, any_format=options.any_timestamp)
    if column.type == "bytea":
        return _bytes(column.max_bytes or 0)
    simple = {"bool": _booleans, "date": _dates, "time": _times, "jsonb": _supers}
    return simple[column.type]()


def _each(convert: Callable[[str], str]) -> Bulk:
    def bulk(values: Sequence[str]) -> list[str]:
        converted: list[str] = []
        try:
            for value in values:
                converted.append(convert(value))
        except BadValue as bad:
            raise BadValue(bad.code, bad.reason, len(converted)) from None
        return converted

    return bulk


def _unless(usual: str, slow: Callable[[str], str]) -> Bulk:
    """Values that all fit the pattern pass unchanged; otherwise each goes through `slow`."""
    pattern = re.compile(rf"(?:(?:{usual})\n)*+", re.ASCII)
    one_by_one = _each(slow)

    def bulk(values: Sequence[str]) -> list[str]:
        joined = "\n".join(values) + "\n"
        if joined.count("\n") == len(values) and pattern.fullmatch(joined):
            return list(values)
        return one_by_one(values)

    return bulk


def _integers(kind: str) -> Bulk:
    bits = _INTEGER_BITS[kind]
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1

    def slow(value: str) -> str:
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise _invalid_digit(value, _INTEGER_NAMES[kind])
        if len(digits) > 40 or not low <= int(value) <= high:
            raise BadValue(1222, f"Overflow for column type {_INTEGER_NAMES[kind]}")
        return value

    return _unless(rf"-?\d{{1,{len(str(high)) - 1}}}", slow)


def _invalid_digit(value: str, name: str) -> BadValue:
    at = next((i for i, c in enumerate(value) if c not in "0123456789" and not (c == "-" and i == 0)), 0)
    return BadValue(1207, f"Invalid digit, Value '{value[at : at + 1]}', Pos {at}, Type: {name}")


def _decimals(modifier: int, *, round_up: bool) -> Bulk:
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, (modifier - 4) & 0xFFFF
    unit = decimal.Decimal(1).scaleb(-scale)
    rounding = decimal.ROUND_HALF_UP if round_up else decimal.ROUND_DOWN
    plain = re.compile(r"-?(?:\d+\.?\d*|\.\d+)", re.ASCII)

    def slow(value: str) -> str:
        if not plain.fullmatch(value):  # no exponent, no NaN
            raise _invalid_digit(value, "Decimal")
        exact = decimal.Decimal(value)
        if exact and exact.adjusted() >= precision - scale:
            raise BadValue(1204, f"Overflow for NUMERIC({precision},{scale})")
        rounded = exact.quantize(unit, rounding=rounding, context=_EXACT)
        if rounded and rounded.adjusted() >= precision - scale:
            raise BadValue(1204, f"Overflow for NUMERIC({precision},{scale})")
        return format(rounded, "f")

    whole = rf"\d{{1,{precision - scale}}}" if precision > scale else "0"
    fraction = rf"(?:\.\d{{1,{scale}}})?" if scale else ""
    return _unless(f"-?{whole}{fraction}", slow)


def _floats(kind: str) -> Bulk:
    def slow(value: str) -> str:
        try:
            number = float(value)
            if kind == "float4":
                struct.pack("!f", number)
        except (ValueError, OverflowError) as error:
            raise BadValue(1208, f"Invalid floating point value: {value[:40]}") from error
        if "_" in value or (number in (float("inf"), float("-inf")) and "inf" not in value.lower()):
            raise BadValue(1208, f"Invalid floating point value: {value[:40]}")
        return value.strip()

    return _unless(r"-?\d{1,15}(?:\.\d{1,20})?", slow)


def _booleans() -> Bulk:
    def slow(value: str) -> str:
        word = value.lower()
        if word in _TRUE or word in _FALSE:
            return "t" if word in _TRUE else "f"
        raise BadValue(1210, "Unknown boolean format")

    return _unless("[tf]", slow)


def _timestamps(kind: str, *, any_format: bool) -> Bulk:
    separator = "[ T]" if any_format else " "
    offset = rf"(?:{_OFFSET}{'|Z' if any_format else ''})?" if kind == "timestamptz" else ""
    clock = rf"(?:{separator}{_CLOCK}{offset})"
    one = re.compile(_DAY + clock + ("?" if any_format else ""), re.ASCII)

    def slow(value: str) -> str:
        if not one.fullmatch(value) or not _is_day(value[:10]):
            raise BadValue(1206, "Invalid timestamp format or value [YYYY-MM-DD HH24:MI:SS]")
        return value

    return _unless(_DAY.replace("|02-29", "") + clock, slow)


def _dates() -> Bulk:
    one = re.compile(_DAY, re.ASCII)

    def slow(value: str) -> str:
        if not one.fullmatch(value) or not _is_day(value):
            raise BadValue(1205, "Invalid Date Format - length must be 10 or more")
        return value

    return _unless(_DAY.replace("|02-29", ""), slow)


def _times() -> Bulk:
    one = re.compile(_CLOCK, re.ASCII)

    def slow(value: str) -> str:
        if not one.fullmatch(value):
            raise BadValue(1206, "Invalid time format or value [HH24:MI:SS]")
        return value

    return _unless(_CLOCK, slow)


def _is_day(value: str) -> bool:
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _strings(max_bytes: int) -> Bulk:
    def slow(value: str) -> str:
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raw = value.encode("utf-8", "surrogateescape")[error.start : error.start + 1]
            words = "String contains invalid or unsupported UTF8 codepoints. Bad UTF8 hex sequence"
            raise BadValue(1220, f"{words}: {raw.hex()} (error 2)") from error
        if "\0" in value:
            raise BadValue(1220, "String contains NUL, which the stand-in cannot store")
        if size > max_bytes:
            raise BadValue(1204, "String length exceeds DDL length")
        return _escape(value)

    one_by_one = _each(slow)

    def bulk(values: Sequence[str]) -> list[str]:
        joined = "".join(values)
        if not joined.isascii() or "\0" in joined or max(map(len, values), default=0) > max_bytes:
            return one_by_one(values)
        return [_escape(value) for value in values] if _ESCAPED.search(joined) else list(values)

    return bulk


def _escape(value: str) -> str:
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], value)


def _supers() -> Bulk:
    decode = msgspec.json.Decoder().decode

    def convert(value: str) -> str:
        try:
            parsed = decode(value)
            size = len(value.encode())
        except (msgspec.DecodeError, UnicodeError) as error:
            raise BadValue(1224, "Invalid JSON format. Invalid value.") from error
        if size > _MAX_SUPER or (size > _MAX_SUPER_STRING and _longest(parsed) > _MAX_SUPER_STRING):
            raise BadValue(1224, "The input exceeds the limits of SUPER")
        if r"\u0000" in value and "\0" in str(parsed):
            raise BadValue(1224, "SUPER contains NUL, which the stand-in cannot store")
        return _escape(value)

    return _each(convert)


def _longest(parsed: object) -> int:
    """The bytes of the longest string in a JSON value."""
    if isinstance(parsed, str):
        return len(parsed.encode())
    if isinstance(parsed, dict):
        return max((max(_longest(k), _longest(v)) for k, v in parsed.items()), default=0)
    return max(map(_longest, parsed), default=0) if isinstance(parsed, list) else 0


def _bytes(max_bytes: int) -> Bulk:
    pairs = re.compile(r"(?:[0-9a-fA-F]{2})*+")

    def convert(value: str) -> str:
        if not pairs.fullmatch(value):
            raise BadValue(1223, "Invalid hexadecimal digits for VARBYTE")
        if len(value) // 2 > max_bytes:
            raise BadValue(1204, "VARBYTE length exceeds DDL length")
        return rf"\\x{value}"

    return _each(convert)
