"""Everything that ``pipeline bench lanes`` measures, and the figures it makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from bench.lanes.costs import Cost
from bench.lanes.draining import Drained
from bench.lanes.phases import Phase
from bench.lanes.troubles import TROUBLES, Isolation
from bench.lanes.watching import quantile

PARTS = ("cpu", "latency", *TROUBLES, "memory")
# Figure, whether it is to be above or below its bar, and the bar.
BARS: dict[str, tuple[str, float]] = {
    "cpu_us_per_event_1000": ("≤", 60),
    "cpu_us_per_event_100000": ("≤", 120),
    "vs_plain_celery": ("≥", 15),
    "latency_p50_ms": ("≤", 15),
    "latency_p99_ms": ("≤", 50),
    "bridge_memory_growth": ("≤", 0.10),
}
BESIDE = dict.fromkeys(TROUBLES, 0.2) | {"slow": 0.30}
"""By how much the others' p99 may move."""


@dataclass(slots=True)
class Result:
    """What was measured; a part that was left out is empty.

    `plain`: stock Celery by events in a task; `memory`: bytes of a bridge by the records that waited.
    """

    costs: list[Cost] = field(default_factory=list)
    plain: dict[int, Drained] = field(default_factory=dict)
    steady: list[Phase] = field(default_factory=list)
    isolations: list[Isolation] = field(default_factory=list)
    memory: dict[int, int] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """What ``--json`` writes, of what was measured; changes, growth and spread are fractions."""
        return {**self._cpu(), **self._latency(), **self._isolation(), **self._memory()}

    def bar(self, name: str) -> tuple[str, float] | None:
        """A figure's bar; that of a change is twice the spread of its own healthy rounds, if that is more."""
        for isolation in self.isolations:
            if name == f"{isolation.trouble}_p99_change":
                return "≤", round(max(BESIDE[isolation.trouble], 2 * isolation.spread), 3)
        return BARS.get(name)

    def quantile(self, percent: float) -> float:
        """Milliseconds of the latency run: the median of its rounds."""
        return median(quantile([one.ms for one in phase.samples], percent) for phase in self.steady)

    def us(self, merchants: int, group: int = 50) -> float | None:
        """CPU microseconds per event; None when it was not measured."""
        found = [cost.drained.us for cost in self.costs if (cost.merchants, cost.group) == (merchants, group)]
        return found[0] if found else None

    def _cpu(self) -> dict[str, float]:
        found = {
            f"cpu_us_per_event_{merchants}": round(us, 1)
            for merchants in (1000, 100_000)
            if (us := self.us(merchants)) is not None
        }
        ours = self.us(1000)
        if ours is not None:
            names = {1: "vs_plain_celery", 100: "vs_batched_celery"}
            found |= {names[size]: round(drained.us / ours, 2) for size, drained in self.plain.items()}
        return found

    def _latency(self) -> dict[str, float]:
        if not self.steady:
            return {}
        return {f"latency_p{percent}_ms": round(self.quantile(percent), 2) for percent in (50, 99)}

    def _isolation(self) -> dict[str, float]:
        if not self.isolations:
            return {}
        changes = {f"{one.trouble}_p99_change": round(one.change, 3) for one in self.isolations}
        return {**changes, "healthy_spread": round(median(one.spread for one in self.isolations), 3)}

    def _memory(self) -> dict[str, float]:
        if not self.memory:
            return {}
        growth = self.memory[max(self.memory)] / self.memory[min(self.memory)] - 1
        return {"bridge_memory_growth": round(growth, 4)}


def met(bar: tuple[str, float], value: float) -> bool:
    """True when the figure is on the right side of its bar."""
    side, limit = bar
    return value >= limit if side == "≥" else value <= limit
