"""Snapshots that a relay asks for by itself: of a table whose partitions were truncated, detached, dropped or attached."""

from __future__ import annotations

import structlog

from pipeline.capture import partitions
from pipeline.capture.session import Connection
from pipeline.control import snapshots
from pipeline.control.database import ControlDatabase
from pipeline.errors import TransientError


class Repairs:
    """Looks after one source's tables. Each notice is asked for once: of a snapshot that failed, status tells people."""

    def __init__(self, connection: Connection, database: ControlDatabase, source: str) -> None:
        self._connection = connection
        self._database = database
        self._source = source
        self._asked: set[int] = set()

    def look(self) -> None:
        """Compare partitions, and request what is needed and not yet requested."""
        partitions.follow(self._connection)
        rows = self._connection.execute(
            "SELECT table_name, array_agg(id) FROM cdc.notices WHERE mendable GROUP BY 1 ORDER BY 1"
        ).fetchall()
        for table, ids in rows:
            if not self._asked.issuperset(ids) and self._requested(table):
                self._asked.update(ids)

    def _requested(self, table: str) -> bool:
        """True when it was requested; not while another one for the table is open, which may have passed its rows."""
        try:
            covered = any(
                request.merchant is None and request.table in (None, table)
                for request in snapshots.open_requests(self._database, self._source)
            )
            if covered:
                return False
            id = snapshots.request(self._database, self._source, table=table)
        except TransientError:
            return False
        structlog.get_logger().warning("snapshot requested", table=table, id=id)
        return True
