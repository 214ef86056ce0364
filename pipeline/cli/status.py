"""``pipeline status``: one screen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType
from rich.table import Table

from pipeline import settings as configuration
from pipeline.bridge import progress
from pipeline.capture import queue
from pipeline.capture.session import session
from pipeline.cli.importing import working_directory
from pipeline.control import parts, rejected, snapshots, sweeps
from pipeline.control.database import ControlDatabase
from pipeline.errors import PipelineError
from pipeline.lanes.claim import Overview
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.settings import Configuration, Settings
from pipeline.sweeping import Sweeper, sweepers
from pipeline.telemetry import ProcessState, heartbeats

T = TypeVar("T")


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
    these, its lanes (their partitions as their topic has them), and what it set aside.
    """

    name: str
    lag: int
    snapshot_lag: int
    oldest_seconds: float
    lanes: Overview
    rejected: int


@dataclass(frozen=True, slots=True)
class State:
    """Everything on the screen. ``problems``: what could not be asked; ``missing``: processes that should beat."""

    sources: list[SourceState]
    consumers: list[ConsumerState]
    loads: list[parts.LoadState]
    sweeps: list[sweeps.Waiting]
    processes: list[ProcessState]
    missing: list[str]
    problems: list[str]

    @property
    def healthy(self) -> bool:
        """Nothing here needs a person."""
        refusing = any(one.lanes.failing_count or one.lanes.sink_failures for one in self.consumers)
        failed = any(load.status == "failed" for load in self.loads)
        needed = any(source.notices for source in self.sources)
        return not (self.problems or self.missing or refusing or failed or needed)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Capture lag, consumer lag, lanes, freshness of index and warehouse, and the processes that beat.

    Exits with 1 when something needs a person: a service that does not answer, a process that does not beat, a
    failing lane, a sink that does not accept, a failed load, a snapshot needed.
    """
    state = _read(configuration.load())
    if as_json:
        click.echo(json.dumps(asdict(state), default=str))
    else:
        console = Console(width=None if sys.stdout.isatty() else 140)
        for part in _screen(state):
            console.print(part)
    sys.exit(0 if state.healthy else 1)


def _read(settings: Settings) -> State:
    problems: list[str] = []

    def asked(what: str, ask: Callable[[], list[T]]) -> list[T]:
        try:
            return ask()
        except PipelineError as error:
            problems.append(f"{what}: {error}")
            return []

    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    sources: list[SourceState] = []
    consumers: list[ConsumerState] = []
    for name in settings.configuration.sources:
        sources += asked(f"source {name}", partial(_sources_of, settings, database, name))
    for name in settings.configuration.consumers:
        consumers += asked(f"consumer {name}", partial(_consumers_of, settings, database, name))
    loads = asked("loads", partial(parts.load_states, database))
    with working_directory():
        sweeping = sweepers(settings)
    waiting = [one for each in sweeping for one in asked("sweeps", partial(_sweeps_of, database, each))]
    unasked = len(problems)
    processes = asked("processes", partial(_processes, settings))
    asking = len(problems) == unasked
    missing = missing_processes(settings.configuration, processes, sweeping=bool(sweeping)) if asking else []
    return State(sources, consumers, loads, waiting, processes, missing, problems)


def missing_processes(
    configured: Configuration, processes: Iterable[ProcessState], *, sweeping: bool
) -> list[str]:
    """What pipeline.toml asks for and does not beat.

    A relay per source, a bridge and a worker per consumer, beat, and with `sweeping` a worker for sweeps.
    """
    beating = {process.process for process in processes}
    queues = {queue for name in beating if name.startswith("worker:") for queue in name[7:].split(",")}
    wanted = [f"capture-{source}" for source in configured.sources]
    wanted += [f"bridge-{consumer}" for consumer in configured.consumers]
    missing = [name for name in [*wanted, "beat"] if name not in beating]
    worked = [*configured.consumers, *(["sweeps"] if sweeping else [])]
    return missing + [f"worker:{queue}" for queue in worked if queue not in queues]


def _sources_of(settings: Settings, database: ControlDatabase, name: str) -> list[SourceState]:
    with session(settings.source_url(name)) as connection:
        waiting = snapshots.open_requests(database, name)
        shown = waiting[0] if waiting else snapshots.newest(database, name)
        return [SourceState(name, queue.lag(connection), queue.notices(connection), shown, len(waiting))]


def _consumers_of(settings: Settings, database: ControlDatabase, name: str) -> list[ConsumerState]:
    partitions = settings.topics_of(name)[0].partitions
    behind = {n: end - (committed or 0) for n, (committed, end) in progress.lag(settings, name).items()}
    lag = sum(records for number, records in behind.items() if number < partitions)
    rows = sum(behind.values()) - lag
    oldest = progress.oldest_seconds(settings, name, time.time()) if lag or rows else 0.0
    with connect(settings.environment.redis_url.get_secret_value()) as client:
        lanes = RedisLaneStore(client, namespace_of(settings.deployment, name)).overview()
    failing = tuple(
        replace(lane, partition=lane.partition % partitions) if lane.partition >= 0 else lane
        for lane in lanes.failing
    )
    lanes = replace(lanes, failing=failing)
    return [ConsumerState(name, lag, rows, oldest, lanes, rejected.counts(database).get(name, 0))]


def _sweeps_of(database: ControlDatabase, sweeper: Sweeper) -> list[sweeps.Waiting]:
    return sweeps.waiting(database, sweeper.consumer, sweeper.topics)


def _processes(settings: Settings) -> list[ProcessState]:
    with connect(settings.environment.redis_url.get_secret_value()) as client:
        return heartbeats(client, settings.deployment)


def _screen(state: State) -> list[RenderableType]:
    screen: list[RenderableType] = [_sources(state), _consumers(state)]
    screen += [
        f"[red]lane {lane.name} of {consumer.name} is failing ({lane.failures} times, at offset {lane.oldest}): {lane.reason}"
        for consumer in state.consumers
        for lane in consumer.lanes.failing
    ]
    screen += [_loads(state), *([_sweeps(state)] if state.sweeps else []), _heartbeats(state)]
    screen += [
        f"[red]{source.name} {notice.table}: {notice.reason}; snapshot needed: pipeline capture snapshot {source.name}"
        for source in state.sources
        for notice in source.notices
    ]
    screen += [
        f"[red]{name} does not beat: it is not running, or cannot reach Redis" for name in state.missing
    ]
    return screen + [f"[red]{problem}" for problem in state.problems]


def _grid(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _sources(state: State) -> Table:
    table = _grid("Capture", "source", "behind", "events waiting", "snapshot")
    for source in state.sources:
        snapshot = source.snapshot
        rows = in_words(snapshot, source.snapshots_open) if snapshot else "none"
        table.add_row(source.name, f"{source.lag.seconds:.1f} s", f"{source.lag.pending:,}", rows)
    return table


def in_words(snapshot: snapshots.Snapshot, open: int) -> str:
    """How far it is, what it is at or waits for, and how many come after it."""
    if snapshot.finished:
        return f"{snapshot.status}, {snapshot.rows_published:,} rows"
    state = "paused" if snapshot.paused else snapshot.detail or snapshot.status
    about = max(snapshot.rows_estimated, snapshot.rows_published)
    more = f"; {open - 1} more" if open > 1 else ""
    return f"{state}, {snapshot.rows_published:,} of about {about:,} rows{more}"


def _consumers(state: State) -> Table:
    table = _grid(
        "Consumers", "consumer", "behind", "snapshot rows", "oldest", "lanes ready", "claimed", "failing",
        "set aside", "sink",
    )  # fmt: skip
    for consumer in state.consumers:
        lanes = consumer.lanes
        sink = "[red]unavailable" if lanes.sink_failures else "accepts"
        table.add_row(
            consumer.name, f"{consumer.lag:,}", f"{consumer.snapshot_lag:,}", f"{consumer.oldest_seconds:.1f} s",
            f"{lanes.ready:,}", f"{lanes.claimed:,}", f"{lanes.failing_count:,}", f"{consumer.rejected:,}", sink,
        )  # fmt: skip
    return table


def _loads(state: State) -> Table:
    table = _grid("Warehouse", "type", "parts waiting", "rows", "oldest", "load")
    for load in state.loads:
        shown = f"[red]failed: {load.error}" if load.status == "failed" else load.status or ""
        table.add_row(
            load.type,
            f"{load.waiting_parts:,}",
            f"{load.waiting_rows:,}",
            f"{load.oldest_seconds:.1f} s",
            shown,
        )
    if not state.loads:
        table.add_row("everything staged is loaded", "", "", "", "")
    return table


def _sweeps(state: State) -> Table:
    table = _grid(
        "Sweeps waiting", "consumer", "source", "type", "merchant", "why", "partitions passed", "age"
    )
    for one in state.sweeps:
        passed = f"{one.passed:,} of {one.partitions:,}"
        cells = (one.source, one.type, one.merchant or "all", one.why, passed, f"{one.seconds:,.0f} s")
        table.add_row(one.consumer, *cells)
    return table


def _heartbeats(state: State) -> Table:
    table = _grid("Processes", "process", "pid", "up", "beat", "metrics")
    now = time.time()
    for process in state.processes:
        metrics = ", ".join(f"{name} {_short(value)}" for name, value in process.metrics.items())
        up, beat = f"{now - process.started:,.0f} s", f"{now - process.at:.0f} s ago"
        table.add_row(process.process, str(process.pid), up, beat, metrics)
    return table


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
