"""What a run prints: each part's table, medians with their spread, and the bars that the figures are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table

from bench.capture.draining import RELAY, Drained
from bench.capture.pgbench import CLIENTS
from bench.capture.result import Result
from bench.capture.run import Plan
from bench.capture.tables import BARE, BY_ROW, BY_STATEMENT, JSONTRIGA
from bench.capture.writers import WRITTEN, Cell
from bench.screen import distrust, grid, spread

# Figure, its bar, and whether it is to be above or below.
BARS: dict[str, tuple[str, float]] = {
    "relay_with_kafka_events_per_s": ("≥", 20_000),
    "relay_with_confluent_events_per_s": ("≥", 26_000),
    "relay_cpu_us_per_event": ("≤", 60),
    "commit_to_kafka_p50_ms": ("≤", 12),
    "commit_to_kafka_p99_ms": ("≤", 25),
    "writer_insert_ratio": ("≥", 0.42),
    "writer_update_ratio": ("≥", 0.40),
    "writer_bulk_ratio": ("≥", 0.25),
    "relay_memory_growth": ("≤", 0.10),
}
_NAMES = {
    BARE: "no trigger",
    BY_ROW: "ours, by row",
    BY_STATEMENT: "ours, by statement",
    JSONTRIGA: "PgQ's jsontriga",
}


def show(result: Result, plan: Plan, console: Console, beside: Sequence[str]) -> None:
    """Print everything that was measured."""
    for table in (*_writers(result), *_relay(result, plan), *_rest(result)):
        console.print(table)
        console.print()
    if result.drained and "confluent-kafka" not in result.clients:
        console.print("[red]confluent-kafka is not installed: not measured. pip install confluent-kafka")
    console.print(_figures(result.figures()))
    distrust(beside, console)


def met(name: str, value: float) -> bool:
    """True when the figure is on the right side of its bar."""
    side, bar = BARS[name]
    return value >= bar if side == "≥" else value <= bar


def _writers(result: Result) -> Iterable[Table]:
    writers = result.writers
    for durable in (False, True) if writers.rates else ():
        title = (
            f"Writers: {CLIENTS} pgbench clients, rows of {writers.image:.0f} bytes as JSON, synchronous_commit"
            f" {'on' if durable else 'off'}"
        )
        table = grid(title, "writer", "statements/s", "of no trigger")
        for operation, written in WRITTEN.items():
            for name in written:
                rates = writers.rates[Cell(operation, name, durable)]
                ratio = writers.ratio(operation, name, durable=durable)
                rounds = writers.ratios(operation, name, durable=durable)
                share = "" if name == BARE else f"{ratio:.2f} ({min(rounds):.2f} to {max(rounds):.2f})"
                table.add_row(f"{operation}, {_NAMES[name]}", spread(rates), share)
            table.add_section()
        yield table


def _relay(result: Result, plan: Plan) -> Iterable[Table]:
    if not result.drained:
        return
    title = f"Relay: {plan.rows:,} changes that wait, rows of {result.image:.0f} bytes, {plan.rounds} rounds"
    servers = [name for name in ("postgres", "kafka") if name in result.drained[0].cpu]
    headings = ("relay", "events/s", "µs CPU each: relay", *servers, "cores busy")
    table = grid(title, *headings)
    for client in result.clients:
        cpu = [spread(result.of(client, _cpu(name)), ".1f") for name in (RELAY, *servers)]
        busy = spread(result.of(client, lambda one: one.busy / one.seconds), ".2f")
        shown = "no Kafka client" if client == "none" else client
        table.add_row(shown, spread(result.of(client, lambda one: one.events_per_s)), *cpu, busy)
    yield table


def _cpu(name: str) -> Callable[[Drained], float]:
    return lambda one: one.cpu_us(name)


def _rest(result: Result) -> Iterable[Table]:
    table = grid("The rest", "figure", "measured")
    if (commits := result.commits) is not None:
        for percent in (50, 99):
            name = f"commit → Kafka at {commits.reached:,.0f} changes/s, p{percent} ms, and of each third of the run"
            table.add_row(name, f"{commits.quantile(percent):.1f}, {spread(commits.spread(percent), '.1f')}")
        table.add_row("probes", f"{len(commits.ms):,}")
        table.add_row("cores busy meanwhile: " + ", ".join(commits.cpu), _shares(commits.cpu))
    if result.copied:
        table.add_row("snapshot rows/s", spread([one.rows_per_s for one in result.copied]))
        table.add_row("rows of a snapshot", f"{result.copied[0].rows:,}")
        errors = [one.eta_error * 100 for one in result.copied]
        table.add_row("worst error of the time left, % of the whole time", spread(errors, ".0f"))
    if result.takeovers:
        table.add_row("standby relays after kill -9, s", spread(result.takeovers, ".2f"))
    if result.idle is not None:
        table.add_row("cores busy when idle: " + ", ".join(result.idle.cpu), _shares(result.idle.cpu))
    for rows, peak in result.peaks.items():
        table.add_row(f"peak MB of a relay, one transaction of {rows:,} rows", f"{peak / 1e6:.1f}")
    if table.row_count:
        yield table


def _shares(cpu: dict[str, float]) -> str:
    return ", ".join(f"{value:.3f}" for value in cpu.values())


def _figures(figures: dict[str, float]) -> Table:
    table = grid("Figures", "figure", "median", "bar", "")
    for name, value in figures.items():
        bar = " ".join(map(str, BARS[name])) if name in BARS else ""
        verdict = ("[green]met" if met(name, value) else "[red]missed") if name in BARS else ""
        table.add_row(name, f"{value:,}", bar, verdict)
    return table
