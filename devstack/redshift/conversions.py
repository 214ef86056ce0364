"""Redshift's rules for one value of a CSV field, by type: which texts pass, and as what.

A rule has a pattern of the texts that pass unchanged (a whole column is tried against it at once) and a
function for every other text, which returns what PostgreSQL's COPY is to read or raises BadValue.
"""

from __future__ import annotations

import decimal
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

_MAX_SUPER, _MAX_SUPER_STRING = 16_000_000, 65_535
_EXACT = decimal.Context(prec=100)

_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DAY = (
    r"(?!0000)(?:\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)"
    rf"|(?:0[13578]|1[02])-31)|{_LEAP_YEAR}-02-29)"
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
class Rule:
    """`usual`: a pattern of texts that pass unchanged (None: there is none). `convert`: for all others."""

    usual: str | None
    convert: Callable[[str], str]


def integers(kind: str) -> Rule:
    """SMALLINT, INTEGER, BIGINT by their PostgreSQL names."""
    bits = _INTEGER_BITS[kind]
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1

    def slow(value: str) -> str:
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise _invalid_digit(value, _INTEGER_NAMES[kind])
        if len(digits) > 40 or not low <= int(value) <= high:
            raise BadValue(1222, f"Overflow for column type {_INTEGER_NAMES[kind]}")
        return value

    return Rule(rf"-?\d{{1,{len(str(high)) - 1}}}", slow)


def _invalid_digit(value: str, name: str) -> BadValue:
    at = next((i for i, c in enumerate(value) if c not in "0123456789" and not (c == "-" and i == 0)), 0)
    return BadValue(1207, f"Invalid digit, Value '{value[at : at + 1]}', Pos {at}, Type: {name}")


def decimals(modifier: int, *, round_up: bool) -> Rule:
    """NUMERIC by its modifier. Without ROUNDEC digits beyond the scale are cut off."""
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
    return Rule(f"-?{whole}{fraction}", slow)


def floats(kind: str) -> Rule:
    """REAL and DOUBLE PRECISION."""

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

    return Rule(r"-?\d{1,15}(?:\.\d{1,20})?", slow)


def booleans() -> Rule:
    """BOOLEAN."""

    def slow(value: str) -> str:
        word = value.lower()
        if word in _TRUE or word in _FALSE:
            return "t" if word in _TRUE else "f"
        raise BadValue(1210, "Unknown boolean format")

    return Rule("[tf]", slow)


def timestamps(kind: str, *, any_format: bool) -> Rule:
    """TIMESTAMP and TIMESTAMPTZ; `any_format` is TIMEFORMAT 'auto'."""
    separator = "[ T]" if any_format else " "
    offset = rf"(?:{_OFFSET}{'|Z' if any_format else ''})?" if kind == "timestamptz" else ""
    clock = rf"(?:{separator}{_CLOCK}{offset})"
    one = re.compile(_DAY + clock + ("?" if any_format else ""), re.ASCII)

    def slow(value: str) -> str:
        if not one.fullmatch(value):
            raise BadValue(1206, "Invalid timestamp format or value [YYYY-MM-DD HH24:MI:SS]")
        return value

    return Rule(_DAY + clock, slow)


def dates() -> Rule:
    """DATE as YYYY-MM-DD."""
    one = re.compile(_DAY, re.ASCII)

    def slow(value: str) -> str:
        if not one.fullmatch(value):
            raise BadValue(1205, "Invalid Date Format - length must be 10 or more")
        return value

    return Rule(_DAY, slow)


def times() -> Rule:
    """TIME as HH:MM:SS[.ffffff]."""
    one = re.compile(_CLOCK, re.ASCII)

    def slow(value: str) -> str:
        if not one.fullmatch(value):
            raise BadValue(1206, "Invalid time format or value [HH24:MI:SS]")
        return value

    return Rule(_CLOCK, slow)


def strings(max_bytes: int) -> Rule:
    """VARCHAR, whose length counts bytes."""

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

    short = rf"[^\x00\\\n\t\r\udc80-\udcff]{{0,{max_bytes // 4}}}+"  # no character takes more than 4 bytes
    return Rule(rf"{short}|[^\x00\\\n\t\r\x80-\U0010ffff]{{0,{max_bytes}}}+", slow)


def _escape(value: str) -> str:
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], value)


def supers() -> Rule:
    """SUPER as JSON, within its limits."""
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

    return Rule(None, convert)


def _longest(parsed: object) -> int:
    """The bytes of the longest string in a JSON value."""
    if isinstance(parsed, str):
        return len(parsed.encode())
    if isinstance(parsed, dict):
        return max((max(_longest(k), _longest(v)) for k, v in parsed.items()), default=0)
    return max(map(_longest, parsed), default=0) if isinstance(parsed, list) else 0


def varbytes(max_bytes: int) -> Rule:
    """VARBYTE as hexadecimal digits."""
    pairs = re.compile(r"(?:[0-9a-fA-F]{2})*+")

    def convert(value: str) -> str:
        if not pairs.fullmatch(value):
            raise BadValue(1223, "Invalid hexadecimal digits for VARBYTE")
        if len(value) // 2 > max_bytes:
            raise BadValue(1204, "VARBYTE length exceeds DDL length")
        return rf"\\x{value}"

    return Rule(None, convert)
