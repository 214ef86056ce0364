"""How far the snapshot in work is, for the heartbeat and for those who wait for it."""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog

from pipeline.capture.pace import Pace
from pipeline.capture.watch import Metrics
from pipeline.control import snapshots as requests
from pipeline.control.database import ControlDatabase
from pipeline.control.snapshots import TableState

_SAY_EVERY = 1.0


class SnapshotProgress:
    """Keeps the relay's metrics, and notes in the control database what a snapshot waits for."""

    def __init__(self, database: ControlDatabase, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._pace = Pace()
        self._left: dict[str, int] = {}
        self._id: int | None = None
        self._said_at = 0.0

    def begin(self, id: int, states: Iterable[TableState]) -> None:
        """A snapshot begins, or goes on."""
        self._id, self._pace = id, Pace()
        self._left = {
            state.table: max(0, state.rows_estimated - state.rows_published)
            for state in states
            if not state.done
        }
        self._told()
        structlog.get_logger().info("snapshot", id=id, rows_left=sum(self._left.values()))

    def published(self, table: str, rows: int) -> None:
        """Kafka has so many more rows of a table."""
        self._metrics.snapshot_rows += rows
        self._left[table] = max(0, self._left[table] - rows)
        self._metrics.snapshot_waits_for = ""
        self._told()

    def swept(self, sweeps: int) -> None:
        """So many sweeps are published."""
        self._metrics.sweeps_published += sweeps

    def done(self, table: str) -> None:
        """Nothing is left of a table."""
        self._left.pop(table)
        self._told()

    def waits(self, reason: str) -> None:
        """It waits, and for what."""
        now = time.monotonic()
        if self._id is not None and (reason != self._metrics.snapshot_waits_for and now >= self._said_at):
            self._said_at = now + _SAY_EVERY
            self._metrics.snapshot_waits_for = reason
            requests.note(self._database, self._id, reason)

    def end(self) -> None:
        """It is over, or will begin again."""
        self._id, self._left = None, {}
        self._metrics.snapshot_waits_for = ""
        self._told()

    def _told(self) -> None:
        left = sum(self._left.values())
        self._pace.count(time.monotonic(), self._metrics.snapshot_rows)
        seconds = self._pace.seconds_for(left)
        self._metrics.snapshot_rows_left = left
        self._metrics.snapshot_eta_seconds = -1 if seconds is None else round(seconds, 1)
