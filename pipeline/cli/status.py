"""``pipeline status``: one screen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import click
import redis
from rich.console import Console, RenderableType
from rich.table import Table

from pipeline import settings as configuration
from pipeline.bridge import progress
from pipeline.capture import queue
from pipeline.capture.session import session
from pipeline.control import parts, rejected, snapshots
from pipeline.control.database import ControlDatabase
from pipeline.errors import PipelineError, TransientError
from pipeline.lanes.claim import Overview
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.settings import Settings
from pipeline.telemetry import ProcessState, heartbeats

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SourceState:
    """Capture of one source."""

    name: str
    lag: queue.Lag
    notices: list[queue.Notice]
    snapshot: snapshots.Snapshot | None


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """One consumer: records not yet accepted, the age of the oldest of them in seconds, its lanes, what it set aside."""

    name: str
    lag: int
    oldest_seconds: float
    lanes: Overview
    rejected: int


@dataclass(frozen=True, slots=True)
class State:
    """Everything on the screen. ``problems``: what could not be asked."""

    sources: list[SourceState]
    consumers: list[ConsumerState]
    loads: list[parts.LoadState]
    processes: list[ProcessState]
    problems: list[str]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Capture lag, consumer lag, lanes, freshness of index and warehouse, and the processes that beat.

    Exits with 1 when something needs a person: a service that does not answer, a failed load, a snapshot needed.
    """
    state = _read(configuration.load())
    if as_json:
        click.echo(json.dumps(asdict(state), default=str))
    else:
        console = Console(width=None if sys.stdout.isatty() else 140)
        for part in _screen(state):
            console.print(part)
    failed = any(load.status == "failed" for load in state.loads)
    needed = any(source.notices for source in state.sources)
    sys.exit(1 if state.problems or failed or needed else 0)


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
    return State(sources, consumers, loads, asked("processes", partial(_processes, settings)), problems)


def _sources_of(settings: Settings, database: ControlDatabase, name: str) -> list[SourceState]:
    with session(settings.source_url(name)) as connection:
        newest = snapshots.newest(database, name)
        return [SourceState(name, queue.lag(connection), queue.notices(connection), newest)]


def _consumers_of(settings: Settings, database: ControlDatabase, name: str) -> list[ConsumerState]:
    behind = progress.lag(settings, name)
    lag = sum(end - (committed or 0) for committed, end in behind.values())
    oldest = progress.oldest_seconds(settings, name, time.time()) if lag else 0.0
    with connect(settings.environment.redis_url.get_secret_value()) as client:
        lanes = RedisLaneStore(client, namespace_of(settings.deployment, name)).overview()
    return [ConsumerState(name, lag, oldest, lanes, rejected.counts(database).get(name, 0))]


def _processes(settings: Settings) -> list[ProcessState]:
    try:
        with connect(settings.environment.redis_url.get_secret_value()) as client:
            return heartbeats(client, settings.deployment)
    except redis.RedisError as error:
        raise TransientError(
            f"Redis does not answer: {type(error).__name__}", hint="see REDIS_URL"
        ) from error


def _screen(state: State) -> list[RenderableType]:
    screen: list[RenderableType] = [_sources(state), _consumers(state)]
    screen += [
        f"[red]lane {lane.merchant} of {consumer.name} is failing ({lane.failures} times, at offset {lane.oldest}): {lane.reason}"
        for consumer in state.consumers
        for lane in consumer.lanes.failing
    ]
    screen += [_loads(state), _heartbeats(state)]
    screen += [
        f"[red]{source.name} {notice.table}: {notice.reason}; snapshot needed: pipeline capture snapshot {source.name}"
        for source in state.sources
        for notice in source.notices
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
        rows = f"{snapshot.status}, {snapshot.rows_published:,} rows" if snapshot else "none"
        table.add_row(source.name, f"{source.lag.seconds:.1f} s", f"{source.lag.pending:,}", rows)
    return table


def _consumers(state: State) -> Table:
    table = _grid(
        "Consumers", "consumer", "behind", "oldest", "lanes ready", "claimed", "failing", "set aside", "sink"
    )
    for consumer in state.consumers:
        lanes = consumer.lanes
        sink = "[red]unavailable" if lanes.sink_failures else "accepts"
        table.add_row(
            consumer.name, f"{consumer.lag:,}", f"{consumer.oldest_seconds:.1f} s", f"{lanes.ready:,}",
            f"{lanes.claimed:,}", f"{lanes.failing_count:,}", f"{consumer.rejected:,}", sink,
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
