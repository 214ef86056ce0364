"""What a run prints: figures with their spread, CPU and memory per process, and where the time above the floor goes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.e2e import Result
from bench.screen import distrust, grid, spread

CORES = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the way: the processes that do it, and the CPU microseconds per event of its measured stages alone."""

    name: str
    processes: tuple[str, ...]
    floor: float
    of: str


STAGES = (
    Stage("capture", ("relay",), 30, "relay 10, kafka-python 20"),
    Stage("broker", ("kafka",), 5, "produce"),
    Stage("lanes and search", ("bridge_search", "redis", "worker_search"), 36, "consume 9, lanes 20, bulk 7"),
    Stage("Elasticsearch", ("elasticsearch",), 35, "30 to 40 by the document"),
    Stage("PostgreSQL", ("postgres",), 0, "PgQ's reads; control database; beneath the Redshift stand-in"),
    Stage(
        "warehouse",
        ("bridge_warehouse", "worker_warehouse", "beat", "s3", "redshift"),
        0,
        "the second consumer",
    ),
)


def show(result: Result, console: Console, beside: Sequence[str]) -> None:
    """Print everything."""
    plan = result.plan
    console.print(
        f"{plan.rows:,} changes a round (70 % inserts, 25 % updates, 5 % deletes), rows of {result.image:.0f} bytes,"
        f" 1,000 merchants, {plan.rounds} rounds; median (lowest to highest)"
    )
    console.print(_main(result), _processes(result), _stages(result))
    _show_notes(result, console)
    distrust(beside, console)


def _main(result: Result) -> Table:
    table = grid("Drain and latency", "figure", "")
    drains, steady = result.drains, result.latency
    floor = median(one.events_per_s for one in result.floors)
    rows = {
        "events/s, from the relay's readiness to the last change searchable": spread(
            [d.events_per_s for d in drains]
        ),
        "events/s, the relay's start-up included": spread([d.events_per_s_with_start_up for d in drains]),
        "floor events/s (psycopg → bulk of 1,000, nothing else)": spread(
            [f.events_per_s for f in result.floors]
        ),
        "share of the floor": f"{result.events_per_s / floor:.0%}",
        "searchable after, s": spread([d.searchable for d in drains], ",.1f"),
        "staged for the warehouse after, s": spread([d.accepted for d in drains], ",.1f"),
        "loaded after, s": spread([d.loaded for d in drains], ",.1f"),
        "machine busy while draining": spread(
            [d.busy_drain / d.searchable / CORES * 100 for d in drains], ".0f"
        )
        + " %",
        f"latency run: {steady.probes:,} probes at {steady.reached:,.0f} events/s (asked {steady.rate:,.0f})": "",
        "commit → searchable, p50 / p99 ms": " / ".join(f"{v:,.0f}" for v in steady.searchable_ms.values()),
        "commit → warehouse, p50 / p99 s": " / ".join(f"{v:,.1f}" for v in steady.warehouse_s.values()),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _processes(result: Result) -> Table:
    table = grid("CPU µs per event", "process", "until searchable", "until loaded", "of that idle", "peak MB")
    until_searchable, until_loaded, peaks = (
        result.cpu_us(lambda one: one.cpu_drain),
        result.cpu_us(),
        result.peaks(),
    )
    for group, ours in (("ours", True), ("servers", False)):
        names = [name for name in until_loaded if (name in result.ours) == ours]
        for name in names:
            table.add_row(name, f"{until_searchable[name]:.1f}", f"{until_loaded[name]:.1f}",
                          f"{_idle(result, name):.1f}", f"{peaks[name] / 1e6:.0f}")  # fmt: skip
        sums = [sum(each[name] for name in names) for each in (until_searchable, until_loaded)]
        idle = sum(_idle(result, name) for name in names)
        peak = sum(peaks[name] for name in names) / 1e6
        table.add_row(f"[bold]{group}", *(f"[bold]{value:.1f}" for value in (*sums, idle)), f"[bold]{peak:.0f}",
                      end_section=True)  # fmt: skip
    return table


def _idle(result: Result, name: str) -> float:
    """What the process would have used with nothing to do for as long as a round took, per event."""
    seconds = median(one.loaded for one in result.drains)
    return result.idle.get(name, 0.0) * seconds / result.plan.rows * 1e6


def _stages(result: Result) -> Table:
    table = grid(
        "Where it goes beside the floor, CPU µs per event until loaded",
        "part",
        "measured",
        "floor",
        "above",
        "floor of",
    )
    cpu = result.cpu_us()
    for stage in STAGES:
        measured = sum(cpu.get(name, 0.0) for name in stage.processes)
        table.add_row(
            stage.name, f"{measured:.1f}", f"{stage.floor:.0f}", f"{measured - stage.floor:+.1f}", stage.of
        )
    floor, total = sum(stage.floor for stage in STAGES), sum(cpu.values())
    table.add_row("[bold]all", f"[bold]{total:.1f}", f"[bold]{floor:.0f}", f"[bold]{total - floor:+.1f}", "")
    return table


def _show_notes(result: Result, console: Console) -> None:
    names = result.floors[0].cpu_us
    floors = {name: median(one.cpu_us[name] for one in result.floors) for name in names}
    console.print(
        "Floor run, CPU µs per event: " + ", ".join(f"{name} {us:.1f}" for name, us in floors.items())
    )
