"""Values on their way into CSV, a column at a time: exact, or NULL or cut with a flag, or refused.

Most columns are plain: one pass in C over all values shows that each can be written as it came. Only when that fails
is every value looked at by itself.
"""

from __future__ import annotations

import re
import sys
from calendar import isleap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import msgspec

from pipeline.warehouse.types import Kind, SinkType

Field = str | int | float | None
_NULL = b"null"
_MAX_JSON_STRING = 65535
_LARGEST_REAL = 3.4028234663852886e38
# 29 February is left to the calendar, one value at a time.
_DAY = (
    r"(?!0000)\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)"
    r"|(?:0[13578]|1[02])-31)"
)
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
_LEAP_DAY = re.compile(r"(?!0000)(\d{4})-02-29", re.ASCII)
# What PostgreSQL can hold and Redshift cannot: infinity, before Christ, after 9999.
_BEYOND = re.compile(r"-?infinity|\d{4,}-.* BC|\d{5,}-.*", re.ASCII)
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_HEX = re.compile(r"\\x(?:[0-9a-f]{2})*", re.ASCII)


class Unfit(ValueError):
    """A value that contradicts its column's type. The message never contains the value."""


class Settled(NamedTuple):
    """What is written for one value, and whether that differs from the value."""

    field: Field
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class Codec:
    """``wire``: what the JSON value may be. ``plain``: all of these (no nulls) can be written as they are.

    ``settle`` decides one value; it raises Unfit.
    """

    wire: Any
    plain: Callable[[Sequence[Any]], bool]
    settle: Callable[[Any], Settled]


def codec(sink_type: SinkType) -> Codec:
    """The codec of a column."""
    return _CODECS[sink_type.kind](sink_type)


def _never(_values: Sequence[Any]) -> bool:
    return False


def _integer(sink_type: SinkType) -> Codec:
    low, high = -(1 << sink_type.size - 1), (1 << sink_type.size - 1) - 1

    def plain(values: Sequence[Any]) -> bool:
        return set(map(type, values)) == {int} and min(values) >= low and max(values) <= high

    def settle(value: Any) -> Settled:
        if isinstance(value, str) and not re.fullmatch(r"-?\d{1,19}", value, re.ASCII):
            raise Unfit("not an integer")
        if isinstance(value, bool) or not low <= int(value) <= high:
            raise Unfit(f"does not fit {sink_type.sql}")
        return Settled(int(value))

    return Codec(int | str | None, plain, settle)


def _matching(pattern: re.Pattern[str], values: Sequence[Any]) -> bool:
    return set(map(type, values)) == {str} and all(map(pattern.fullmatch, values))


def _numeric(sink_type: SinkType) -> Codec:
    integer = f"\\d{{1,{sink_type.size - sink_type.scale}}}" if sink_type.size > sink_type.scale else "0"
    fraction = f"(?:\\.\\d{{1,{sink_type.scale}}})?" if sink_type.scale else ""
    pattern = re.compile(f"-?{integer}{fraction}", re.ASCII)

    def settle(value: Any) -> Settled:
        text = str(value)
        if pattern.fullmatch(text):
            return Settled(text)
        if text in ("NaN", "Infinity", "-Infinity"):
            return Settled(None, flagged=True)
        raise Unfit(f"does not fit {sink_type.sql}")

    return Codec(int | str | None, partial(_matching, pattern), settle)


def _digits(sink_type: SinkType) -> Codec:
    pattern = re.compile(r"-?\d+(?:\.\d+)?|NaN|-?Infinity", re.ASCII)

    def settle(value: Any) -> Settled:
        text = str(value)
        if not pattern.fullmatch(text):
            raise Unfit("not a decimal number")
        return Settled(text) if len(text) <= sink_type.size else Settled(None, flagged=True)

    return Codec(int | str | None, _never, settle)


def _float(sink_type: SinkType) -> Codec:
    largest = _LARGEST_REAL if sink_type.size == 32 else sys.float_info.max

    def plain(values: Sequence[Any]) -> bool:
        return set(map(type, values)) <= {float, int} and max(map(abs, values)) <= largest

    def settle(value: Any) -> Settled:
        if value in ("NaN", "Infinity", "-Infinity"):
            return Settled(None, flagged=True)
        try:
            number = float(value)
        except ValueError:
            raise Unfit("not a number") from None
        if not abs(number) <= largest:
            raise Unfit(f"does not fit {sink_type.sql}")
        return Settled(number)

    return Codec(float | str | None, plain, settle)


def _boolean(_sink_type: SinkType) -> Codec:
    return Codec(bool | None, _never, lambda value: Settled("t" if value else "f"))


def _text(sink_type: SinkType) -> Codec:
    def plain(values: Sequence[Any]) -> bool:
        return 4 * max(map(len, values)) <= sink_type.size and "\0" not in "".join(values)

    return Codec(str | None, plain, partial(_cut, size=sink_type.size))


def _cut(value: str, size: int) -> Settled:
    """Without NUL, and on a character boundary within `size` bytes."""
    text = value.replace("\0", "")
    encoded = text.encode()
    if len(encoded) > size:
        text = encoded[:size].decode("utf-8", "ignore")
    return Settled(text, flagged=text != value)


def _json(_sink_type: SinkType) -> Codec:
    def settle(value: Any) -> Settled:
        if value is None or bytes(value) == _NULL:
            return Settled(None)
        text = bytes(value).decode()
        too_long = len(text) > _MAX_JSON_STRING and _longest(msgspec.json.decode(text)) > _MAX_JSON_STRING
        if too_long or ("\\u0000" in text and _ESCAPED_NUL.search(text)):
            return Settled(None, flagged=True)
        return Settled(text)

    return Codec(msgspec.Raw, _never, settle)


def _longest(value: Any) -> int:
    """The longest string, in bytes, anywhere in a JSON value, names included."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict):
        return max(map(_longest, (*value.keys(), *value.values())), default=0)
    if isinstance(value, list):
        return max(map(_longest, value), default=0)
    return 0


def _bytes(sink_type: SinkType) -> Codec:
    def settle(value: Any) -> Settled:
        if not _HEX.fullmatch(value):
            raise Unfit("not bytes in hexadecimal")
        fits = (len(value) - 2) // 2 <= sink_type.size
        return Settled(value[2:]) if fits else Settled(None, flagged=True)

    return Codec(str | None, _never, settle)


def _temporal(pattern: str, sink_type: SinkType) -> Codec:
    usual = re.compile(pattern, re.ASCII)

    def settle(value: Any) -> Settled:
        leap_day = _LEAP_DAY.match(value)
        day = f"{leap_day[1]}-02-28" if leap_day and isleap(int(leap_day[1])) else value[:10]
        if usual.fullmatch(day + value[10:]):
            return Settled(value)
        if _BEYOND.fullmatch(value) or value == "24:00:00":
            return Settled(None, flagged=True)
        raise Unfit(f"not a {sink_type.sql} in ISO 8601")

    return Codec(str | None, partial(_matching, usual), settle)


def _other(sink_type: SinkType) -> Codec:
    def settle(value: Any) -> Settled:
        if value is None or isinstance(value, (bool, int)):
            return Settled(None if value is None else str(value).lower())
        if isinstance(value, str):
            return _cut(value, sink_type.size)
        raw = bytes(value)
        if raw == _NULL:
            return Settled(None)
        return _cut(msgspec.json.decode(raw) if raw[:1] == b'"' else raw.decode(), sink_type.size)

    return Codec(msgspec.Raw, _never, settle)


_CODECS: dict[Kind, Callable[[SinkType], Codec]] = {
    "integer": _integer,
    "numeric": _numeric,
    "digits": _digits,
    "float": _float,
    "boolean": _boolean,
    "text": _text,
    "json": _json,
    "bytes": _bytes,
    "date": partial(_temporal, _DAY),
    "timestamp": partial(_temporal, f"{_DAY}T{_CLOCK}"),
    "timestamptz": partial(_temporal, rf"{_DAY}T{_CLOCK}(?:Z|[+-](?:0\d|1[0-5]):[0-5]\d)"),
    "time": partial(_temporal, _CLOCK),
    "other": _other,
}
