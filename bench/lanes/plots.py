"""A picture per part, for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from bench.lanes.phases import RATE
from bench.lanes.result import BARS, Result
from bench.lanes.troubles import Isolation
from bench.lanes.watching import per_second, quantile

_SIZE = (9.0, 3.6)  # inches
_DPI = 110
_PARTS = {
    "bridge": "#4477aa",
    "worker": "#66ccee",
    "redis": "#ee6677",
    "kafka": "#ccbb44",
    "postgres": "#bbbbbb",
}
_GAP = 3.0  # seconds between phases, on the paper


def draw(result: Result, directory: Path) -> list[Path]:
    """Write the pictures of what was measured; returns them."""
    directory.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[Axes], None]] = {}
    if result.costs:
        pictures["cpu"] = lambda axes: _costs(result, axes)
    if result.steady:
        pictures["latency"] = lambda axes: _latency(result, axes)
    if result.memory:
        pictures["memory"] = lambda axes: _memory(result, axes)
    for one in result.isolations:
        pictures[one.trouble] = lambda axes, one=one: _isolation(one, axes)  # type: ignore[misc]
    return [_write(directory / f"lanes_{name}.png", paint) for name, paint in pictures.items()]


def _write(file: Path, paint: Callable[[Axes], None]) -> Path:
    figure, axes = pyplot.subplots(figsize=_SIZE, dpi=_DPI, layout="constrained")
    paint(axes)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(file, metadata={"Software": None})
    pyplot.close(figure)
    return file


def _costs(result: Result, axes: Axes) -> None:
    grouped = [cost for cost in result.costs if cost.group > 1]
    labels = [f"{cost.merchants:,}" for cost in grouped]
    floor = [0.0] * len(grouped)
    for name, colour in _PARTS.items():
        values = [cost.drained.us_of(name) for cost in grouped]
        axes.bar(labels, values, bottom=floor, color=colour, label=name, width=0.6)
        floor = [low + value for low, value in zip(floor, values, strict=True)]
    for place, total in enumerate(floor):
        axes.annotate(f"{total:.0f}", (place, total), ha="center", va="bottom")
    axes.set(
        title="CPU per event, up to 50 lanes in a turn", xlabel="merchants (Zipf)", ylabel="µs per event"
    )
    axes.legend(frameon=False, fontsize="small")


def _latency(result: Result, axes: Axes) -> None:
    for number, phase in enumerate(result.steady, 1):
        values = sorted(sample.ms for sample in phase.samples)
        shares = [(place + 1) / len(values) * 100 for place in range(len(values))]
        axes.plot(values, shares, label=f"round {number}")
    for percent, name in ((50, "latency_p50_ms"), (99, "latency_p99_ms")):
        axes.plot([BARS[name][1]], [percent], "k|", markersize=14)
    axes.set(
        title=f"From Kafka to the task at {RATE:.0f} events/s (bars: p50, p99)", xlabel="ms", ylabel="% of events",
        xlim=(0, max(60.0, result.quantile(99) * 1.3)),
    )  # fmt: skip
    axes.legend(frameon=False, fontsize="small")


def _isolation(one: Isolation, axes: Axes) -> None:
    at = 0.0
    for phase in one.phases:
        if phase.trouble:
            axes.axvspan(at, at + phase.seconds, color="#ee6677", alpha=0.12, lw=0)
        for percent, colour in ((50, "#4477aa"), (99, "#aa3377")):
            points = per_second(phase.samples, percent)
            seconds, values = [at + second for second, _ in points], [value for _, value in points]
            label = f"p{percent} of each second" if phase is one.phases[0] else None
            axes.plot(seconds, values, color=colour, lw=0.9, label=label)
        p99 = quantile([sample.ms for sample in phase.samples], 99)
        axes.plot([at, at + phase.seconds], [p99, p99], color="k", lw=1.2, ls=":")
        at += phase.seconds + _GAP
    axes.set(
        title=f"{one.trouble}: the others at {RATE:.0f} events/s; shaded: trouble, dotted: p99 of the phase",
        xlabel="s", ylabel="ms from Kafka to the task", yscale="log",
    )  # fmt: skip
    axes.legend(frameon=False, fontsize="small")


def _memory(result: Result, axes: Axes) -> None:
    labels, values = (
        [f"{records:,}" for records in result.memory],
        [peak / 1e6 for peak in result.memory.values()],
    )
    axes.barh(labels, values, color=_PARTS["bridge"], height=0.5)
    for place, value in enumerate(values):
        axes.annotate(f" {value:.1f}", (value, place), va="center")
    axes.set(title="Peak memory of a bridge by records that wait", xlabel="MB", ylabel="records")
