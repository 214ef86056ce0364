"""One canonical text per PostgreSQL type, so that the same value read from three databases compares equal.

Inputs are what the stores give back: a row image's JSON value, a document's field, or Redshift's text. A JSON ``null``
inside a json column and SQL NULL are one and the same in every sink, and so they are here.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec

from pipeline.domain.table import Table

_NULL = "\x00null"
_SPECIAL = {"infinity", "-infinity"}
_MODIFIER = re.compile(r"\(.*?\)")
_SHORT_ZONE = re.compile(r"([+-]\d\d)$")


def canonical(column_type: str, value: Any) -> str:
    """The canonical text of `value`, which a column of `column_type` holds; equal values give equal texts."""
    if value is None:
        return _NULL
    return _CANONICAL.get(_MODIFIER.sub("", column_type), str)(value)


def digest(table: Table, key: str, row: Mapping[str, Any], without: Collection[str] = ()) -> int:
    """A 64-bit checksum of one row: its key and every captured column but those `without`.

    Sums of digests modulo 2^64 do not depend on order.
    """
    hashed = hashlib.blake2b(key.encode(), digest_size=8)
    for column in table.columns:
        if column.name not in without:
            text = canonical(column.type, row.get(column.name))
            hashed.update(b"\x1f" + text.encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashed.digest(), "big")


def _boolean(value: Any) -> str:
    return "true" if value is True or str(value).lower() in ("t", "true", "1") else "false"


def _numeric(value: Any) -> str:
    number = Decimal(str(value))
    if not number.is_finite():
        return str(number)
    if not number:
        return "0"
    digits = format(number, "f")  # normalize() would round to the context's 28 digits
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _double(value: Any) -> str:
    return repr(float(value))


def _real(value: Any) -> str:
    number = float(value)
    return repr(struct.unpack("f", struct.pack("f", number))[0]) if abs(number) < 3.5e38 else repr(number)


def _timestamp(value: Any) -> str:
    moment = _moment(value)
    return (
        moment if isinstance(moment, str) else moment.replace(tzinfo=None).isoformat(timespec="microseconds")
    )


def _timestamptz(value: Any) -> str:
    moment = _moment(value)
    if isinstance(moment, str):
        return moment
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds")


def _moment(value: Any) -> datetime | str:
    if isinstance(value, datetime):
        return value
    text = str(value)
    if text in _SPECIAL or text.endswith("BC"):
        return text
    try:
        return datetime.fromisoformat(_SHORT_ZONE.sub(r"\1:00", text))
    except ValueError:
        return text  # beyond year 9999: PostgreSQL's own text is the canonical one


def _date(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def _time(value: Any) -> str:
    moment = (
        value
        if isinstance(value, time)
        else time.fromisoformat(str(value).replace("24:00:00", "23:59:59.999999"))
    )
    return moment.isoformat(timespec="microseconds")


def _json(value: Any) -> str:
    parsed = msgspec.json.decode(value.encode()) if isinstance(value, Encoded) else value
    return _NULL if parsed is None else msgspec.json.encode(parsed, order="deterministic").decode()


class Encoded(str):
    """JSON as text, as the warehouse returns it; documents and row images give it parsed."""

    __slots__ = ()


def _bytea(value: Any) -> str:
    return value.hex() if isinstance(value, (bytes, memoryview)) else str(value).removeprefix("\\x").lower()


_CANONICAL: dict[str, Callable[[Any], str]] = {
    "boolean": _boolean,
    "smallint": lambda value: str(int(value)),
    "integer": lambda value: str(int(value)),
    "bigint": lambda value: str(int(value)),
    "numeric": _numeric,
    "real": _real,
    "double precision": _double,
    "timestamp without time zone": _timestamp,
    "timestamp with time zone": _timestamptz,
    "date": _date,
    "time without time zone": _time,
    "json": _json,
    "jsonb": _json,
    "text[]": _json,
    "bytea": _bytea,
}
