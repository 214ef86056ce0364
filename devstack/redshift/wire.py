"""Messages of the PostgreSQL protocol, version 3: framing and the few bodies that are built here."""

from __future__ import annotations

import asyncio
import struct

from devstack.redshift.errors import SqlError, from_postgres

SSL_REQUEST = 80877103
PROTOCOL_3 = 196608

Message = tuple[bytes, bytes]


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message: its type byte, its length (itself included), its body."""
    return kind + struct.pack("!i", len(body) + 4) + body


def text(value: str | bytes) -> bytes:
    """A string as the protocol writes it, ended by NUL."""
    return (value.encode() if isinstance(value, str) else value) + b"\0"


def split_text(body: bytes, start: int = 0) -> tuple[bytes, int]:
    """The NUL-ended string at `start` and the position after it."""
    end = body.index(b"\0", start)
    return body[start:end], end + 1


async def read_message(reader: asyncio.StreamReader) -> Message:
    """The next message, as (type byte, body)."""
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


async def read_untyped(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """A startup packet, which has no type byte: (its request code, what follows)."""
    length = struct.unpack("!i", await reader.readexactly(4))[0]
    body = await reader.readexactly(length - 4)
    return int(struct.unpack("!i", body[:4])[0]), body[4:]


def startup(parameters: dict[str, str]) -> bytes:
    """The startup packet of a client."""
    pairs = b"".join(text(name) + text(value) for name, value in parameters.items())
    return struct.pack("!ii", len(pairs) + 9, PROTOCOL_3) + pairs + b"\0"


def startup_parameters(body: bytes) -> dict[str, str]:
    """The parameters a client's startup packet carries."""
    parts = body.rstrip(b"\0").decode().split("\0")
    return dict(zip(parts[::2], parts[1::2], strict=False))


def error(failure: SqlError, severity: str = "ERROR") -> bytes:
    """An ErrorResponse message."""
    fields = {"S": severity, "C": failure.code, "M": failure.message}
    if failure.detail:
        fields["D"] = failure.detail
    return message(b"E", b"".join(k.encode() + text(v) for k, v in fields.items()) + b"\0")


def notice(words: str) -> bytes:
    """A NoticeResponse of severity INFO, as COPY sends."""
    return message(b"N", b"SINFO\0C00000\0M" + text(words) + b"\0")


def error_fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse body, by their one-letter names."""
    parts = body.decode("utf-8", "replace").split("\0")
    return {part[0]: part[1:] for part in parts if part}


def failure(body: bytes) -> SqlError:
    """PostgreSQL's ErrorResponse in Redshift's words."""
    return from_postgres(error_fields(body))


def parameter_status(name: str, value: str) -> bytes:
    """A ParameterStatus message."""
    return message(b"S", text(name) + text(value))
