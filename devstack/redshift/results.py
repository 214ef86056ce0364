"""Result rows as Redshift sends them: its type numbers, its longer column descriptions, its binary NUMERIC."""

from __future__ import annotations

import decimal
import struct
from dataclasses import dataclass

_NUMERIC, _BYTEA, _JSONB = 1700, 17, 3802
_SUPER, _VARBYTE = 4000, 6551
_REDSHIFT_TYPE = {_JSONB: _SUPER, _BYTEA: _VARBYTE}
_UNTYPED_SCALE = 10  # a NUMERIC expression without a declared scale
_UNTYPED = ((38 << 16) | _UNTYPED_SCALE) + 4
_DIGITS_IN_8_BYTES = 18
_EXACT = decimal.Context(prec=80)

BINARY_PROTOCOL = 2


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """A result column: PostgreSQL's type number and modifier."""

    oid: int
    modifier: int

    @property
    def as_text(self) -> bool:
        """Asked of PostgreSQL as text, and reworded here."""
        return self.oid in (_NUMERIC, _BYTEA)


def describe(body: bytes, protocol: int) -> tuple[list[ResultColumn], bytes]:
    """The columns of a RowDescription, and its body for a client of this protocol version."""
    columns, pieces, at = [], [body[:2]], 2
    for _ in range(struct.unpack("!h", body[:2])[0]):
        name_end = body.index(b"\0", at) + 1
        table, number, oid, size, modifier, form = struct.unpack_from("!ihihih", body, name_end)
        column = ResultColumn(oid, modifier)
        columns.append(column)
        shown = _UNTYPED if oid == _NUMERIC and modifier == -1 and protocol == BINARY_PROTOCOL else modifier
        fixed = struct.pack("!ihihih", table, number, _REDSHIFT_TYPE.get(oid, oid), size, shown, form)
        extra = (
            b"\0\0\0\0" + struct.pack("!h", 1) if protocol else b""
        )  # schema, table, column, catalog; flags
        pieces += [body[at:name_end], fixed, extra]
        at = name_end + 18
    return columns, b"".join(pieces)


def bind(body: bytes, at: int, columns: list[ResultColumn]) -> bytes:
    """A Bind body, `at` behind its two names, that asks for NUMERIC and VARBYTE as text."""
    formats_given = struct.unpack_from("!h", body, at)[0]
    at += 2 + 2 * formats_given
    values = struct.unpack_from("!h", body, at)[0]
    at += 2
    for _ in range(values):
        at += 4 + max(struct.unpack_from("!i", body, at)[0], 0)
    count = struct.unpack_from("!h", body, at)[0]
    given = struct.unpack_from(f"!{count}h", body, at + 2)
    formats = list(given) if count == len(columns) else [given[0] if count else 0] * len(columns)
    formats = [0 if column.as_text else form for column, form in zip(columns, formats, strict=True)]
    return body[:at] + struct.pack(f"!h{len(formats)}h", len(formats), *formats)


def row(body: bytes, columns: list[ResultColumn], protocol: int) -> bytes:
    """A DataRow body with VARBYTE as bare hexadecimal digits and, in the binary protocol, NUMERIC scaled."""
    pieces, at = [body[:2]], 2
    for column in columns:
        size = struct.unpack_from("!i", body, at)[0]
        value = body[at + 4 : at + 4 + max(size, 0)]
        at += 4 + max(size, 0)
        if size >= 0 and column.as_text:
            value = _value(value, column, protocol)
            size = len(value)
        pieces += [struct.pack("!i", size), value]
    return b"".join(pieces)


def _value(value: bytes, column: ResultColumn, protocol: int) -> bytes:
    if column.oid == _BYTEA:
        return value.removeprefix(b"\\x")
    return _scaled(value, column.modifier) if protocol == BINARY_PROTOCOL else value


def _scaled(value: bytes, modifier: int) -> bytes:
    known = modifier != -1
    scale = (modifier - 4) & 0xFFFF if known else _UNTYPED_SCALE
    scaled = decimal.Decimal(value.decode()).scaleb(scale, context=_EXACT)
    whole = int(scaled.to_integral_value(decimal.ROUND_HALF_UP, context=_EXACT))
    short = known and (modifier - 4) >> 16 <= _DIGITS_IN_8_BYTES
    return whole.to_bytes(8 if short else 16, "big", signed=True)
