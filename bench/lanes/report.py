"""What a run prints: each part's table, and the bars that the figures are held against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from bench.lanes.draining import Drained
from bench.lanes.phases import RATE
from bench.lanes.result import Result, met
from bench.lanes.watching import quantile
from bench.screen import distrust, grid, spread

_PROCESSES = ("bridge", "forwarding", "worker", "redis", "kafka", "postgres")


def show(result: Result, console: Console, beside: Sequence[str]) -> None:
    """Print everything that was measured."""
    for table in (*_costs(result), *_latency(result), *_isolations(result), *_memory(result)):
        console.print(table)
        console.print()
    console.print(_figures(result))
    distrust(beside, console)


def _costs(result: Result) -> Iterable[Table]:
    if not result.costs:
        return
    title = "CPU µs per event, from Kafka to a task that does nothing"
    table = grid(title, "part", "events", "µs", *_PROCESSES, "events/s")
    for cost in result.costs:
        lanes = "1 lane" if cost.group == 1 else f"up to {cost.group} lanes"
        table.add_row(f"{cost.merchants:,} merchants, {lanes} in a turn", *_cells(cost.drained))
    for size, drained in result.plain.items():
        tasks = "an event per task" if size == 1 else f"up to {size} events per task"
        table.add_row(f"plain Celery, 1,000 merchants, {tasks}", *_cells(drained))
    yield table


def _cells(drained: Drained) -> list[str]:
    parts = [f"{drained.us_of(name):.1f}" if name in drained.cpu else "" for name in _PROCESSES]
    return [f"{drained.events:,}", f"[bold]{drained.us:.1f}", *parts, f"{drained.events_per_s:,.0f}"]


def _latency(result: Result) -> Iterable[Table]:
    if not result.steady:
        return
    table = grid(f"From Kafka to the task at {RATE:.0f} events/s, ms", "figure", "median (rounds)")
    for percent in (50, 90, 99, 99.9):
        values = [quantile([one.ms for one in phase.samples], percent) for phase in result.steady]
        table.add_row(f"p{percent}", spread(values, ".1f"))
    table.add_row("samples in a round", f"{min(len(phase.samples) for phase in result.steady):,}")
    table.add_row("latest departure, ms late", f"{max(phase.late for phase in result.steady) * 1000:.0f}")
    yield table


def _isolations(result: Result) -> Iterable[Table]:
    if not result.isolations:
        return
    table = grid(
        f"The others at {RATE:.0f} events/s beside one in trouble, p99 ms",
        "part", "healthy", "beside trouble", "change", "allowed", "spread", "samples", "own partition, worst s",
    )  # fmt: skip
    for one in result.isolations:
        bar = result.bar(f"{one.trouble}_p99_change")
        table.add_row(
            f"{one.trouble}, up to {one.group} in a turn",
            spread(one.p99s(trouble=False), ".1f"),
            spread(one.p99s(trouble=True), ".1f"),
            f"{one.change:+.0%}",
            f"{bar[1]:.0%}" if bar else "",
            f"{one.spread:.0%}",
            f"{one.samples:,}",
            spread([ms / 1000 for ms in one.own_troubled], ".1f") if one.own_troubled else "",
        )
    yield table


def _memory(result: Result) -> Iterable[Table]:
    if not result.memory:
        return
    table = grid("Memory of a bridge whose lanes nobody empties", "records waiting", "peak MB")
    for records, peak in result.memory.items():
        table.add_row(f"{records:,}", f"{peak / 1e6:.1f}")
    yield table


def _figures(result: Result) -> Table:
    table = grid("Figures", "figure", "measured", "bar", "")
    for name, value in result.figures().items():
        bar = result.bar(name)
        verdict = "" if bar is None else "[green]met" if met(bar, value) else "[red]missed"
        table.add_row(name, f"{value:,}", "" if bar is None else f"{bar[0]} {bar[1]:g}", verdict)
    return table
