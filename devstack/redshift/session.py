"""One client connection: greeting, then batches of messages up to each Sync."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from devstack.redshift import faults, results, wire
from devstack.redshift.backend import Backend
from devstack.redshift.emulation import Emulation
from devstack.redshift.errors import ConnectionCut, SqlError, not_covered
from devstack.redshift.greeting import greet
from devstack.redshift.plans import Forward, Plan
from devstack.redshift.rewrite import SNAPSHOT, plan
from devstack.redshift.settings import Cluster
from devstack.redshift.tokens import quote

_WRITE_BUFFER = 1 << 20


@dataclass(slots=True)
class Prepared:
    """A statement the client has named: its plan and text, and its result columns once described."""

    plan: Plan
    sql: str
    columns: list[results.ResultColumn] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """What a run of messages up to Sync has done so far."""

    forwarded: bool = False
    prepared: Prepared | None = None
    executed: Prepared | None = None
    hide_answer: bool = False


class Session:
    """Serves one client until it leaves or a fault cuts it off."""

    def __init__(
        self, cluster: Cluster, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._cluster, self._number = cluster, number
        self._reader, self._writer = reader, writer
        self._statements: dict[bytes, Prepared] = {}
        self._portals: dict[bytes, Prepared] = {}
        self._locked: set[tuple[str, str]] = set()
        self._protocol = 0
        self._copied = False  # a COPY ran in the open transaction
        self._backend: Backend

    async def run(self) -> None:
        """Greet, then answer until the connection ends."""
        try:
            greeted = await greet(self._cluster, self._reader, self._writer)
            if greeted:
                self._backend, self._protocol = greeted.backend, greeted.protocol
                await self._serve()
        except ConnectionCut:
            self._writer.transport.abort()
        except SqlError as failure:  # PostgreSQL takes no more sessions, say
            self._writer.write(wire.error(failure, "FATAL"))
        except (asyncio.IncompleteReadError, OSError):  # gone, or it does not trust our certificate
            return
        finally:
            if hasattr(self, "_backend"):
                self._backend.close()
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _serve(self) -> None:
        messages: list[wire.Message] = []
        while True:
            kind, body = await wire.read_message(self._reader)
            if kind == b"X":
                return
            if kind == b"Q":
                failure = not_covered("the simple query protocol; the driver does not use it")
                self._writer.write(wire.error(failure) + wire.message(b"Z", self._backend.status))
            elif kind == b"S":
                await self._answer(messages)
                messages = []
            elif kind != b"H":
                messages.append((kind, body))
            await self._writer.drain()

    async def _answer(self, messages: list[wire.Message]) -> None:
        batch, error = Batch(), None
        try:
            for kind, body in messages:
                await self._message(batch, kind, body)
        except SqlError as failure:
            error = await self._fail(batch, failure)
        if batch.forwarded:
            self._backend.send(b"S")
            error = await self._relay(batch)
        else:
            self._writer.write(wire.message(b"Z", self._backend.status))
        if batch.executed and isinstance(batch.executed.plan, Forward):
            self._log(batch.executed, error)
        if self._backend.status == b"I":
            self._locked.clear()
            self._copied = False

    async def _fail(self, batch: Batch, failure: SqlError) -> str:
        """Refuse; an open transaction is aborted by it."""
        if batch.forwarded:
            self._backend.send(b"S")
            while (await self._backend.read())[0] != b"Z":
                pass
            batch.forwarded = False
        await self._backend.abort_transaction()
        self._writer.write(wire.error(failure))
        return failure.code

    async def _message(self, batch: Batch, kind: bytes, body: bytes) -> None:
        if kind == b"P":
            await self._parse(batch, body)
        elif kind == b"B":
            await self._bind(batch, body)
        elif kind == b"D":
            self._describe(batch, body)
        elif kind == b"E":
            await self._execute(batch, body)
        elif kind == b"C":
            self._close(batch, body)
        else:
            raise SqlError(f"unexpected message {kind!r}", "08P01")

    def _forward(self, batch: Batch, kind: bytes, body: bytes) -> None:
        self._backend.send(kind, body)
        batch.forwarded = True

    async def _parse(self, batch: Batch, body: bytes) -> None:
        name, at = wire.split_text(body)
        sql, types_at = wire.split_text(body, at)
        prepared = Prepared(plan(sql.decode(), self._cluster.isolation), sql.decode())
        self._statements[name] = prepared
        if not isinstance(prepared.plan, Forward):
            self._writer.write(wire.message(b"1"))
            return
        await self._lock(prepared.plan)
        self._forward(batch, b"P", wire.text(name) + wire.text(prepared.plan.sql) + body[types_at:])

    async def _bind(self, batch: Batch, body: bytes) -> None:
        portal, at = wire.split_text(body)
        name, at = wire.split_text(body, at)
        prepared = self._statements.get(name)
        if prepared is None:
            raise SqlError(f'prepared statement "{name.decode()}" does not exist', "26000")
        self._portals[portal] = batch.prepared = prepared
        if not isinstance(prepared.plan, Forward):
            self._writer.write(wire.message(b"2"))
            return
        await self._lock(prepared.plan)
        if prepared.columns and self._protocol == results.BINARY_PROTOCOL:
            body = results.bind(body, at, prepared.columns)
        self._forward(batch, b"B", body)

    def _describe(self, batch: Batch, body: bytes) -> None:
        named = self._statements if body[:1] == b"S" else self._portals
        prepared = batch.prepared = named.get(body[1:-1])
        if prepared and not isinstance(prepared.plan, Forward):
            parameters = wire.message(b"t", b"\0\0") if body[:1] == b"S" else b""
            self._writer.write(parameters + wire.message(b"n"))
            return
        self._forward(batch, b"D", body)

    async def _execute(self, batch: Batch, body: bytes) -> None:
        prepared = self._portals.get(wire.split_text(body)[0])
        if prepared is None:
            raise SqlError("portal does not exist", "34000")
        batch.executed = prepared
        if isinstance(prepared.plan, Forward):
            if prepared.plan.verb == "COMMIT":
                self._fault_at_commit(batch)
            self._forward(batch, b"E", body)
            return
        if batch.forwarded:
            raise not_covered("several statements before one Sync")
        await self._emulate(prepared)

    def _fault_at_commit(self, batch: Batch) -> None:
        if not self._copied:
            return
        if faults.take(self._cluster.state, faults.DROP_BEFORE_COMMIT):
            raise ConnectionCut
        batch.hide_answer = faults.take(self._cluster.state, faults.DROP_COMMIT_ANSWER)

    async def _emulate(self, prepared: Prepared) -> None:
        assert not isinstance(prepared.plan, Forward)
        work = Emulation(self._cluster, self._backend, self._lock)
        error = None
        try:
            self._writer.write(await work.run(prepared.plan))
            self._copied = self._copied or prepared.plan.verb == "COPY"
        except SqlError as failure:
            error = failure.code
            raise
        finally:
            self._log(prepared, error, work.rows)

    def _close(self, batch: Batch, body: bytes) -> None:
        named = self._statements if body[:1] == b"S" else self._portals
        prepared = named.pop(body[1:-1], None)
        if prepared is None or not isinstance(prepared.plan, Forward):
            self._writer.write(wire.message(b"3"))
            return
        self._forward(batch, b"C", body)

    async def _relay(self, batch: Batch) -> str | None:
        """Pass PostgreSQL's answers on, up to ReadyForQuery; returns the SQLSTATE of an error among them."""
        error = None
        while True:
            kind, body = await self._backend.read()
            if batch.hide_answer:
                if kind == b"Z":
                    self._log(batch.executed, None)
                    raise ConnectionCut
                continue
            if kind == b"E":
                failure = wire.failure(body)
                error = failure.code
                self._writer.write(wire.error(failure))
            else:
                self._writer.write(wire.message(kind, self._reworded(batch, kind, body)))
            if kind == b"Z":
                return error
            if self._writer.transport.get_write_buffer_size() > _WRITE_BUFFER:
                await self._writer.drain()

    def _reworded(self, batch: Batch, kind: bytes, body: bytes) -> bytes:
        prepared = batch.prepared
        if kind == b"T":
            columns, body = results.describe(body, self._protocol)
            if prepared:
                prepared.columns = columns
        elif kind == b"D" and prepared and any(column.as_text for column in prepared.columns):
            return results.row(body, prepared.columns, self._protocol)
        elif kind == b"C" and body.startswith(b"MERGE "):
            return wire.text("MERGE")  # whether Redshift counts merged rows is not documented
        return body

    async def _lock(self, work: Forward) -> None:
        """Writers of a table queue as in Redshift, and before the statement's snapshot is taken."""
        if self._backend.status != b"T":
            return
        shared = work.shared and self._cluster.isolation == SNAPSHOT
        mode = "ROW EXCLUSIVE" if shared else "SHARE ROW EXCLUSIVE"
        for table in work.locks:
            name = quote(*table)
            if (name, mode) not in self._locked:
                await self._backend.query(f"LOCK TABLE {name} IN {mode} MODE")
                self._locked.add((name, mode))

    def _log(self, prepared: Prepared | None, error: str | None, rows: int | None = None) -> None:
        if prepared:
            self._cluster.log.add(self._number, prepared.plan.verb, prepared.sql, error, rows)
