"""A picture of a chaos run: throughput and backlog over time, and when what struck."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from pipeline.chaos.verdict import Sample, Struck, Verdict
from pipeline.errors import PermanentError

_SIZE, _DPI = (11.0, 5.5), 110


def draw(verdict: Verdict, file: Path) -> None:
    """Write it; PermanentError where matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise PermanentError("no picture without matplotlib", hint="pip install matplotlib") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (rate, backlog) = pyplot.subplots(
        2, 1, sharex=True, figsize=_SIZE, dpi=_DPI, layout="constrained"
    )
    seconds = [sample.at for sample in verdict.samples]
    rate.plot(*_rates(verdict.samples, 1), color="#bbbbbb", lw=1, label="into Kafka")
    rate.plot(*_rates(verdict.samples, 2), color="#4477aa", lw=1, label="first deliveries")
    rate.set(ylabel="records/s", title=f"pipeline chaos --seed {verdict.seed}")
    rate.legend(frameon=False, fontsize="small")
    waiting = [sample.published - sample.delivered for sample in verdict.samples]
    backlog.fill_between(seconds, waiting, color="#ee6677", alpha=0.4, lw=0)
    backlog.set(xlabel="s", ylabel="records not delivered yet", ylim=(0, None))
    for axes in (rate, backlog):
        axes.spines[["top", "right"]].set_visible(False)
    _mark(backlog, verdict.struck, max(waiting, default=1))
    figure.savefig(file, metadata={"Software": None})
    pyplot.close(figure)


def _rates(samples: Sequence[Sample], column: int) -> tuple[list[float], list[float]]:
    pairs = [(one, other) for one, other in pairwise(samples) if other.at > one.at]
    return (
        [other.at for _, other in pairs],
        [(other[column] - one[column]) / (other.at - one.at) for one, other in pairs],
    )


def _mark(axes: object, struck: Sequence[Struck], top: float) -> None:
    for one in struck:
        axes.axvline(one.at, color="k", lw=0.5, alpha=0.3)  # type: ignore[attr-defined]
        axes.text(one.at, top, one.fault, rotation=90, fontsize=6, va="top", ha="right")  # type: ignore[attr-defined]
