"""``pipeline status`` for people: one screen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.table import Table

from pipeline.cli.status_state import State
from pipeline.cli.terminal import cell, moment
from pipeline.control import snapshots
from pipeline.domain.routing import merchant_of_lane
from pipeline.lanes.claim import Overview
from pipeline.telemetry import ProcessState


def screen(state: State) -> list[RenderableType]:
    """Its parts, from top to bottom."""
    parts: list[RenderableType] = [_sources(state), _consumers(state)]
    parts += [cell(sentence, "red") for sentence in _lanes_in_trouble(state)]
    parts += [_loads(state), *([_sweeps(state)] if state.sweeps else [])]
    parts += [*([_moves(state)] if state.moves else []), _heartbeats(state)]
    parts += [
        cell(
            f"{source.name} {notice.table}: {notice.reason}; snapshot needed: pipeline capture snapshot {source.name}",
            "red",
        )
        for source in state.sources
        for notice in source.notices
    ]
    parts += [
        cell(f"{name} does not beat: it is not running, or cannot reach Redis", "red")
        for name in state.missing
    ]
    return parts + [cell(problem, "red") for problem in state.problems]


def _lanes_in_trouble(state: State) -> Iterator[str]:
    for consumer in state.consumers:
        if consumer.pause is not None:
            pause = consumer.pause
            yield (
                f"{consumer.name} is paused as a whole by {pause.actor} since {moment(pause.since)}: {pause.reason};"
                f" pipeline lanes resume {consumer.name} --all"
            )
        for row in consumer.parked:
            yield (
                f"lane {row.lane} of {consumer.name} is parked since {moment(row.since)}, at offset {row.first}:"
                f" {row.reason}; pipeline lanes show {consumer.name} {merchant_of_lane(row.lane)}"
            )
        yield from _failing(consumer.name, consumer.lanes)
    for lanes in state.tasks:
        yield from _failing("tasks", lanes)
    yield from near_retention(state.processes)


def near_retention(processes: Iterable[ProcessState]) -> Iterator[str]:
    """What bridges say of detached lanes whose records pass retention soon, or have."""
    for process in processes:
        metrics = process.metrics
        if aging := metrics.get("aging_lanes"):
            hours = float(metrics.get("detached_age_s", 0)) / 3600
            yield (
                f"{process.process}: {aging:,} detached lanes wait for more than a quarter of the retention,"
                f" the longest for {hours:,.1f} h"
            )
        if metrics.get("copying_fails"):
            yield f"{process.process}: records of detached lanes are not copied to S3; see its log"
        if lost := metrics.get("lost_lanes"):
            yield f"{process.process}: {lost:,} detached lanes wait for records that passed retention; see their reasons"


def _failing(name: str, lanes: Overview) -> Iterator[str]:
    for lane in lanes.failing:
        yield f"lane {lane.name} of {name} is failing ({lane.failures} times, at offset {lane.oldest}): {lane.reason}"


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
        "parked", "paused", "detached", "cursors", "set aside", "sink",
    )  # fmt: skip
    for consumer in state.consumers:
        lanes, detached = consumer.lanes, consumer.detached
        paused = "all" if consumer.pause is not None else f"{detached.paused:,}"
        table.add_row(
            consumer.name, f"{consumer.lag:,}", f"{consumer.snapshot_lag:,}", f"{consumer.oldest_seconds:.1f} s",
            f"{lanes.ready:,}", f"{lanes.claimed:,}", f"{lanes.failing_count:,}", f"{detached.parked:,}", paused,
            f"{detached.running:,}", f"{_cursors(state, consumer.name):,}", f"{consumer.rejected:,}", _sink(lanes),
        )  # fmt: skip
    for lanes in state.tasks:
        counts = (f"{lanes.ready:,}", f"{lanes.claimed:,}", f"{lanes.failing_count:,}")
        table.add_row("tasks", "", "", "", *counts, "", "", "", "", "", "")
    return table


def _sink(lanes: Overview) -> str:
    return "[red]unavailable" if lanes.sink_failures else "accepts"


def _cursors(state: State, consumer: str) -> int:
    """How many read a partition again now, in all bridges of the consumer."""
    beating = (
        one.metrics.get("cursors", 0) for one in state.processes if one.process == f"bridge-{consumer}"
    )
    return sum(int(count) for count in beating)


def _loads(state: State) -> Table:
    table = _grid("Warehouse", "type", "parts waiting", "rows", "oldest", "load")
    for load in state.loads:
        shown = cell(f"failed: {load.error}", "red") if load.status == "failed" else load.status or ""
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
        table.add_row(one.consumer, *map(cell, cells))
    return table


def _moves(state: State) -> Table:
    table = _grid("Merchants on their way", "merchant", "from", "to", "done", "since", "reason")
    for one in state.moves:
        table.add_row(
            *map(cell, (one.merchant, one.source, one.target, one.step, moment(one.changed_at), one.reason))
        )
    return table


def _heartbeats(state: State) -> Table:
    table = _grid("Processes", "process", "pid", "up", "beat", "metrics")
    now = time.time()
    for process in state.processes:
        metrics = cell(", ".join(f"{name} {_short(value)}" for name, value in process.metrics.items()))
        up, beat = f"{now - process.started:,.0f} s", f"{now - process.at:.0f} s ago"
        table.add_row(process.process, str(process.pid), up, beat, metrics)
    return table


def _short(value: float | int | str) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
