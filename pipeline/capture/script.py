"""Statements that are run in one transaction and remembered as text; and how tables are locked for them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql

from pipeline.capture.session import Connection
from pipeline.errors import TransientError

Statement = sql.SQL | sql.Composed
_SHARED, _EXCLUSIVE = "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"

_LOCK_TIMEOUT = "10s"  # for what nobody else should hold: our own schema
_PATIENCE = 30.0
_PAUSE = 0.5


class DryRun(Exception):
    """Rolls the transaction back after everything in it has worked."""


class Script:
    """Runs statements and remembers them. ``advice``: what only an owner may run, for lack of that right."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.statements: list[str] = []
        self.advice: list[str] = []

    def run(self, statements: Iterable[Statement]) -> None:
        """Run and remember each."""
        for statement in statements:
            self.statements.append(statement.as_string(self.connection))
            self.connection.execute(statement)

    def attempt(self, statement: str) -> None:
        """Run what only an owner may; without that right it becomes advice."""
        try:
            with self.connection.transaction():
                self.connection.execute(statement.encode())
            self.statements.append(statement)
        except psycopg.errors.InsufficientPrivilege:
            self.advice.append(statement)

    def lock(self, shared: Sequence[sql.Identifier], exclusive: Sequence[sql.Identifier] = ()) -> None:
        """Keep writers out of the tables `shared`, and everybody out of `exclusive`, until the transaction ends.

        All of them at once or none, tried again for a while; TransientError names who holds one. Each try is shorter
        than deadlock_timeout, counted from its first lock: an application that waits for one table while we wait for
        another of its own is never the one that PostgreSQL ends. Between tries nobody waits for us.
        """
        statements = [
            sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.SQL(", ").join(tables), sql.SQL(mode))
            for tables, mode in ((shared, _SHARED), (exclusive, _EXCLUSIVE))
            if tables
        ]
        self.statements += [statement.as_string(self.connection) for statement in statements]
        until = time.monotonic() + _PATIENCE
        while not self._locked(statements):
            if time.monotonic() >= until:
                raise TransientError(
                    f"a table is locked: {_holder(self.connection, shared, exclusive)}",
                    hint="try again when no long transaction holds a captured table",
                )
            time.sleep(_PAUSE)

    def _locked(self, statements: Sequence[Statement]) -> bool:
        try:
            with self.connection.transaction():
                self.connection.execute(_BRIEFLY)
                for statement in statements:
                    self.connection.execute(statement)
                self.connection.execute("SELECT set_config('statement_timeout', '0', true)")
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            return False
        return True

    def limit_waiting(self) -> None:
        """For the rest of the transaction: give up rather than queue for locks, with writers queueing behind us."""
        self.connection.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))


# A third: `lock` runs at most two statements. No more than a third of a second, because writers queue behind us.
_BRIEFLY = """
SELECT set_config('statement_timeout', greatest(1, least(setting::integer, 1000) / 3)::text, true)
FROM pg_settings WHERE name = 'deadlock_timeout'
"""


def _holder(
    connection: Connection, shared: Sequence[sql.Identifier], exclusive: Sequence[sql.Identifier]
) -> str:
    names = [[table.as_string(connection) for table in tables] for tables in (shared, exclusive)]
    row = connection.execute(_HOLDER, names).fetchone()
    return row[0] if row else "whoever it was has let go by now"


_HOLDER = """
SELECT format('%%s by %%s', l.relation::regclass, coalesce('session ' || a.pid || ' of role ' || a.usename
  || ', in a transaction since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS TZ'), 'a prepared transaction'))
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND (l.relation = ANY (SELECT name::regclass FROM unnest(%s::text[]) name)
         AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
       OR l.relation = ANY (SELECT name::regclass FROM unnest(%s::text[]) name))
ORDER BY a.xact_start LIMIT 1
"""
