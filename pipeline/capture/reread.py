"""Changes whose row image could not be made in the trigger: the relay reads the row again, as it stands by then.

The event keeps its version, so whatever changed since wins when its own event comes. A row that is gone, or is another
merchant's by now, is left out: its delete or its move is in the queue behind this event, and another merchant's row
must not be shown under this one's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import psycopg
import structlog

from pipeline.capture import rows
from pipeline.capture.queue import Event
from pipeline.capture.session import Connection, of_the_data, translated
from pipeline.domain.table import Table


class Rereader:
    """Asks the source beside the relay's own session, which is in the middle of a stream."""

    def __init__(self, open_session: Callable[[], Connection], tables: Iterable[Table]) -> None:
        self._open_session = open_session
        self._tables = {table.name: table for table in tables}
        self._session: Connection | None = None

    def completed(self, event: Event) -> Event | None:
        """The event with its row; None when there is no such row of this merchant, or it cannot be read either."""
        table = self._tables.get(event.table)
        row = self._row(table, event) if table is not None else None
        found = row is not None and row.merchant == event.merchant
        structlog.get_logger().error(
            "event without row image", table=event.table, key=event.key[:200], ev=event.ev, read_again=found
        )
        return event._replace(after=row.image) if row is not None and found else None

    def captures(self, table: str) -> bool:
        """True while the source captures this table."""
        with translated():
            found = self._open().execute("SELECT FROM cdc.captured WHERE table_name = %s", (table,))
            return found.fetchone() is not None

    def close(self) -> None:
        """End the session, if there is one; the next question opens another."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _row(self, table: Table, event: Event) -> rows.SourceRow | None:
        with translated():
            connection = self._open()
            try:
                row = rows.read_row(connection, table, msgspec.json.decode(event.key))
            except psycopg.Error as error:
                if not of_the_data(error):
                    raise
                return None
            if row is not None:
                connection.execute(_FLUSH)
            return row

    def _open(self) -> Connection:
        if self._session is None or self._session.closed:
            self._session = self._open_session()
        return self._session


# What was read may be the work of a writer with synchronous_commit = off, which a crash would take back.
_FLUSH = """
SELECT pg_logical_emit_message(true, 'cdc', '') FROM (SELECT set_config('synchronous_commit', 'on', true)) durable
"""
