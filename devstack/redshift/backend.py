"""One connection to the PostgreSQL behind the stand-in, at message level."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from devstack.redshift import auth, wire
from devstack.redshift.errors import SqlError

_LIMIT = 1 << 20
# Redshift, like PostgreSQL 8.0, reads backslash escapes in '...'.
_PARAMETERS = {
    "application_name": "redshift-stand-in",
    "TimeZone": "UTC",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
}


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """Where PostgreSQL listens: the directory of its unix socket, port, superuser and password."""

    directory: str
    port: int
    user: str
    password: str = field(repr=False)


@dataclass(slots=True)
class Answer:
    """Rows (as text) of a simple query."""

    rows: list[list[str | None]] = field(default_factory=list)
    failure: SqlError | None = None


class Backend:
    """A PostgreSQL session. `status` is the last ReadyForQuery byte: I idle, T in a transaction, E aborted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = b"I"
        self.greeting: list[wire.Message] = []
        self.pid = 0

    @classmethod
    async def connect(cls, address: PostgresAddress, database: str) -> Backend:
        """Open a session; raises SqlError with PostgreSQL's words when it is refused."""
        path = f"{address.directory}/.s.PGSQL.{address.port}"
        backend = cls(*await asyncio.open_unix_connection(path, limit=_LIMIT))
        try:
            await backend._start(address, database)
        except BaseException:
            backend.close()
            raise
        return backend

    async def _start(self, address: PostgresAddress, database: str) -> None:
        self.writer.write(wire.startup({"user": address.user, "database": database, **_PARAMETERS}))
        scram = auth.Scram(address.password)
        while True:
            kind, body = await wire.read_message(self.reader)
            if kind == b"E":
                raise wire.failure(body)
            if kind == b"R":
                self._authenticate(body, address, scram)
            elif kind in (b"S", b"K"):
                self.greeting.append((kind, body))
                self.pid = struct.unpack("!i", body[:4])[0] if kind == b"K" else self.pid
            elif kind == b"Z":
                return

    def _authenticate(self, body: bytes, address: PostgresAddress, scram: auth.Scram) -> None:
        request, rest = struct.unpack("!i", body[:4])[0], body[4:]
        if request == 3:
            self.send(b"p", wire.text(address.password))
        elif request == 5:
            self.send(b"p", auth.md5_answer(address.user, address.password, rest))
        elif request == 10:
            self.send(b"p", scram.first())
        elif request == 11:
            self.send(b"p", scram.final(rest))

    def send(self, kind: bytes, body: bytes = b"") -> None:
        """Queue one message to PostgreSQL."""
        self.writer.write(wire.message(kind, body))

    async def read(self) -> wire.Message:
        """The next message; ReadyForQuery also sets `status`."""
        kind, body = await wire.read_message(self.reader)
        if kind == b"Z":
            self.status = body
        return kind, body

    async def query(self, sql: str, feed: AsyncIterator[bytes] | None = None) -> list[list[str | None]]:
        """Run a simple query; `feed` gives the data of a COPY FROM STDIN. Raises SqlError."""
        self.send(b"Q", wire.text(sql))
        answer = Answer()
        while True:
            kind, body = await self.read()
            if kind == b"Z":
                break
            if kind == b"G" and feed is not None:
                answer.failure = await self._feed(feed)
            elif kind == b"D":
                answer.rows.append(_row(body))
            elif kind == b"E":
                answer.failure = answer.failure or wire.failure(body)
        if answer.failure:
            raise answer.failure
        return answer.rows

    async def _feed(self, feed: AsyncIterator[bytes]) -> SqlError | None:
        """Send the data of a COPY; what the feed raises ends it as failed and is returned."""
        try:
            async for chunk in feed:
                self.send(b"d", chunk)
                await self.writer.drain()
        except SqlError as failure:
            self.send(b"f", wire.text("load failed"))
            return failure
        self.send(b"c")
        return None

    async def abort_transaction(self) -> None:
        """Put an open transaction into the aborted state, as an error in it would."""
        if self.status == b"T":
            self.send(b"Q", wire.text("stand-in: aborted"))  # a syntax error aborts without touching anything
            while (await self.read())[0] != b"Z":
                pass

    def close(self) -> None:
        """Drop the connection; PostgreSQL rolls back what is open."""
        self.writer.transport.abort()


def _row(body: bytes) -> list[str | None]:
    values: list[str | None] = []
    at = 2
    for _ in range(struct.unpack("!h", body[:2])[0]):
        size = struct.unpack_from("!i", body, at)[0]
        values.append(None if size < 0 else body[at + 4 : at + 4 + size].decode())
        at += 4 + max(size, 0)
    return values
