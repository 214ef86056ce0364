"""What ``pipeline status`` knows, as its screen and programs get it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.capture import queue
from pipeline.control import parts, snapshots, sweeps
from pipeline.control.detached import DetachedLane
from pipeline.control.lane_views import Counts
from pipeline.control.placements import Placement
from pipeline.control.requests import Pause
from pipeline.lanes.claim import Overview
from pipeline.telemetry import ProcessState


@dataclass(frozen=True, slots=True)
class SourceState:
    """Capture of one source. ``snapshot`` is the one in work, or else the newest; ``snapshots_open`` wait or are in work."""

    name: str
    lag: queue.Lag
    notices: list[queue.Notice]
    snapshot: snapshots.Snapshot | None
    snapshots_open: int


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """One consumer: changes not yet accepted, rows of snapshots not yet accepted, the age in seconds of the oldest of all
    these, its lanes (their partitions as their topic has them), what it set aside, its detached lanes, those of them that
    are parked (the first ones), and who holds the whole of it.
    """

    name: str
    lag: int
    snapshot_lag: int
    oldest_seconds: float
    lanes: Overview
    rejected: int
    detached: Counts = field(default_factory=Counts)
    parked: tuple[DetachedLane, ...] = ()
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Everything on the screen. ``tasks``: the lanes of Celery tasks, where there are any; ``moves``: merchants on their way
    between sources; ``problems``: what could not be asked; ``missing``: processes that should beat.
    """

    sources: list[SourceState]
    consumers: list[ConsumerState]
    loads: list[parts.LoadState]
    sweeps: list[sweeps.Waiting]
    processes: list[ProcessState]
    missing: list[str]
    problems: list[str]
    tasks: list[Overview] = field(default_factory=list)
    moves: list[Placement] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Nothing here needs a person."""
        overviews = [*(one.lanes for one in self.consumers), *self.tasks]
        refusing = any(one.failing_count or one.sink_failures for one in overviews)
        parked = any(one.detached.parked for one in self.consumers)
        failed = any(load.status == "failed" for load in self.loads)
        needed = any(source.notices for source in self.sources)
        return not (self.problems or self.missing or refusing or parked or failed or needed)
