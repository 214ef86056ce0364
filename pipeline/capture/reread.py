"""Changes whose row image could not be made in the trigger: the relay reads the row again, as it stands by then.

The event keeps its version, so whatever changed since wins when its own event comes. A row that is gone, or is another
merchant's by now, is left out: its delete or its move is in the queue behind this event, and another merchant's row
must not be shown under this one's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

import msgspec
import psycopg
import structlog

from pipeline.capture import rows
from pipeline.capture.queue import Event
from pipeline.capture.session import Connection, translated
from pipeline.domain.table import Table


class Rereader:
    """Reads rows by their keys, in a session of its own: the relay's is in the middle of a stream."""

    def __init__(self, open_session: Callable[[], Connection], tables: Iterable[Table]) -> None:
        self._open_session = open_session
        self._tables = {table.name: table for table in tables}

    def completed(self, event: Event) -> Event | None:
        """The event with its row; None when there is no such row of this merchant, or it cannot be read either."""
        table = self._tables.get(event.table)
        row = self._row(table, event) if table is not None else None
        found = row is not None and row.merchant == event.merchant
        structlog.get_logger().error(
            "event without row image", table=event.table, key=event.key, ev=event.ev, read_again=found
        )
        return event._replace(after=row.image) if row is not None and found else None

    def _row(self, table: Table, event: Event) -> rows.SourceRow | None:
        with closing(self._open_session()) as connection, translated():
            try:
                return rows.read_row(connection, table, msgspec.json.decode(event.key))
            except (psycopg.DataError, psycopg.ProgrammingError):
                return None
