"""What a relay tells of its queue, and when it raises the alarm: nothing bounds the queue but the source's disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import structlog

from pipeline.capture.lint import lint
from pipeline.capture.queue import Queue
from pipeline.capture.rotation import rotation

_LINT_EVERY = 24 * 3600.0
_ROTATION_GRACE = 300.0  # seconds overdue before it is worth a word


@dataclass(slots=True)
class Metrics:
    """What the heartbeat tells; written by the relay, read by the heartbeat's thread."""

    events_published: int = 0
    events_without_image: int = 0
    events_read_again: int = 0
    events_left_out: int = 0
    events_too_large: int = 0
    batches: int = 0
    last_tick_at: float = 0.0
    lag_seconds: float = 0.0
    pending: int = 0
    queue_bytes: int = 0
    rotation_overdue_seconds: float = 0.0
    rotation_blocked_by: str = ""
    alarms: str = ""
    lint_refusals: int = 0
    lint_warnings: int = 0
    generation: int = 0
    timeline: int = 0
    snapshot_rows: int = 0
    snapshot_rows_left: int = 0
    snapshot_eta_seconds: float = 0.0
    snapshot_waits_for: str = ""
    sweeps_published: int = 0
    standby: int = 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """Beyond which a queue is worth an alarm: seconds behind, bytes held."""

    lag_seconds: float
    queue_bytes: int


class Watch:
    """Measures the queue and compares it with its bounds; each alarm is logged when it begins and when it ends."""

    def __init__(self, source: str, bounds: Bounds, metrics: Metrics) -> None:
        self._source = source
        self._bounds = bounds
        self._metrics = metrics
        self._alarms: dict[str, str] = {}
        self._lint_at = 0.0

    def look(self, queue: Queue) -> None:
        """Measure what changes by the second."""
        lag = queue.lag()
        self._metrics.lag_seconds, self._metrics.pending = lag.seconds, lag.pending
        behind = f"the relay is {lag.seconds:.0f} s behind, {lag.pending} events wait"
        self._judge("lag", lag.seconds > self._bounds.lag_seconds, behind)

    def look_closely(self, queue: Queue) -> None:
        """Measure what changes slowly: the size on disk, and who holds up the rotation."""
        size, state = queue.size(), rotation(queue.connection)
        self._metrics.queue_bytes = size
        self._metrics.rotation_overdue_seconds = state.overdue_seconds
        self._metrics.rotation_blocked_by = state.blocked_by
        self._judge(
            "queue", size > self._bounds.queue_bytes, f"the queue holds {size} bytes of the source's disk"
        )
        late = state.overdue_seconds > _ROTATION_GRACE and bool(state.blocked_by)
        self._judge("rotation", late, f"the queue's tables cannot rotate because of {state.blocked_by}")

    def lint(self, queue: Queue, tables: Sequence[str]) -> None:
        """Once a day: what has happened to the captured tables, their triggers and rights, each finding in the log."""
        now = time.monotonic()
        if now < self._lint_at:
            return
        self._lint_at = now + _LINT_EVERY
        findings = lint(queue.connection, tables)
        for finding in findings:
            if finding.level != "note":
                structlog.get_logger().warning("lint", source=self._source, **asdict(finding))
        self._metrics.lint_refusals = sum(finding.level == "refuse" for finding in findings)
        self._metrics.lint_warnings = sum(finding.level == "warn" for finding in findings)

    def _judge(self, alarm: str, raised: bool, what: str) -> None:
        log = structlog.get_logger()
        if raised and alarm not in self._alarms:
            log.error("alarm", alarm=alarm, source=self._source, what=what)
        elif not raised and alarm in self._alarms:
            log.info("alarm ends", alarm=alarm, source=self._source)
        if raised:
            self._alarms[alarm] = what
        else:
            self._alarms.pop(alarm, None)
        self._metrics.alarms = "; ".join(self._alarms.values())
