"""Statements that PostgreSQL does not have, or has with another meaning, run on the client's own session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from psycopg import sql

from devstack.redshift import wire
from devstack.redshift.backend import Backend
from devstack.redshift.errors import SqlError
from devstack.redshift.load import Copy
from devstack.redshift.plans import CopyFromS3, Emulated, Forward, Ignored, ReplaceView, Truncate
from devstack.redshift.settings import Cluster
from devstack.redshift.tokens import Name, quote

_VIEW_COLUMNS = sql.SQL(
    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
    " WHERE attrelid = to_regclass({}) AND attnum > 0 ORDER BY attnum"
)


class Emulation:
    """Runs one statement. `rows` is what a COPY loaded."""

    def __init__(
        self, cluster: Cluster, backend: Backend, lock: Callable[[Forward], Awaitable[None]]
    ) -> None:
        self._cluster, self._backend, self._lock = cluster, backend, lock
        self.rows: int | None = None

    async def run(self, work: Emulated) -> bytes:
        """Do it, in a transaction of its own if none is open; returns the messages of the answer."""
        if self._backend.status == b"E":
            words = "current transaction is aborted, commands ignored until end of transaction block"
            raise SqlError(words, "25P02")
        if isinstance(work, Ignored):
            return self._ignore(work)
        own = self._backend.status == b"I"
        if own:
            await self._backend.query(f"BEGIN ISOLATION LEVEL {self._cluster.isolation}")
        try:
            answer = await self._dispatch(work)
        except SqlError:
            if own:
                await self._backend.query("ROLLBACK")
            raise
        if own or isinstance(work, Truncate):
            await self._backend.query("COMMIT")
        return answer + wire.message(b"C", wire.text(work.verb))

    def _ignore(self, work: Ignored) -> bytes:
        if work.alone and self._backend.status != b"I":
            raise SqlError(f"{work.verb} cannot run inside a transaction block", "25001")
        return wire.message(b"C", wire.text(work.verb))

    async def _dispatch(self, work: CopyFromS3 | Truncate | ReplaceView) -> bytes:
        if isinstance(work, CopyFromS3):
            return await self._copy(work)
        if isinstance(work, Truncate):
            await self._backend.query(f"TRUNCATE {quote(*work.table)}")
        else:
            await self._replace_view(work)
        return b""

    async def _copy(self, work: CopyFromS3) -> bytes:
        await self._lock(Forward("COPY", "", (work.table,), shared=True))
        copy = Copy(work, self._cluster.s3, self._cluster.state)
        self.rows = await copy.run(self._backend, self._cluster.postgres, self._cluster.database)
        table = work.table[-1]
        return wire.notice(f"Load into table '{table}' completed, {self.rows} record(s) loaded successfully.")

    async def _replace_view(self, work: ReplaceView) -> None:
        before = await self._columns(work.view)
        await self._backend.query(work.sql)
        if before and before != await self._columns(work.view):
            raise SqlError("cannot change number of columns in view", "42P16")

    async def _columns(self, view: Name) -> list[list[str | None]]:
        return await self._backend.query(_VIEW_COLUMNS.format(quote(*view)).as_string())
