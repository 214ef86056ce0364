"""``pipeline bench e2e``: rounds of floor and drain in turn, then latency at half the rate reached or at a given one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import psycopg

from bench import floor, latency, proc
from bench.deployment import RELAY, Deployment
from bench.drain import Drain, Say, drain
from bench.floor import Floor
from bench.latency import Latency
from bench.load import IMAGE, Changes
from bench.servers import servers
from bench.sinks import Sinks

WARM_UP = 20_000
_IDLE = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do: changes per round, rounds, seconds of the latency run and its rate (None: half the drained)."""

    rows: int = 200_000
    rounds: int = 3
    seconds: float = 60.0
    rate: float | None = None

    @property
    def warm_up(self) -> int:
        """Changes drained before anything is measured."""
        return min(WARM_UP, self.rows)


@dataclass(frozen=True, slots=True)
class Result:
    """Everything measured. `idle`: CPU seconds per second of each process with nothing to do; `image`: bytes of a row."""

    plan: Plan
    image: float
    idle: dict[str, float]
    floors: list[Floor]
    drains: list[Drain]
    latency: Latency
    ours: tuple[str, ...]

    def figures(self) -> dict[str, float]:
        """What ``--json`` writes: medians over the rounds, the highest peak."""
        return {
            "events_per_s": round(self.events_per_s, 1),
            "commit_to_searchable_p50_ms": round(self.latency.searchable_ms[50], 1),
            "commit_to_searchable_p99_ms": round(self.latency.searchable_ms[99], 1),
            "commit_to_warehouse_p99_s": round(self.latency.warehouse_s[99], 2),
            "cpu_us_per_event": round(sum(us for name, us in self.cpu_us().items() if name in self.ours), 1),
            "server_cpu_us_per_event": round(
                sum(us for name, us in self.cpu_us().items() if name not in self.ours), 1
            ),
            "peak_mb": round(sum(self.peaks()[name] for name in self.ours) / 1e6, 1),
        }

    @property
    def events_per_s(self) -> float:
        """The median round's."""
        return median(one.events_per_s for one in self.drains)

    def cpu_us(self, of: Callable[[Drain], dict[str, float]] = lambda one: one.cpu) -> dict[str, float]:
        """CPU microseconds per event by process, each the median of the rounds."""
        names = of(self.drains[0])
        return {name: median(of(one)[name] / one.rows * 1e6 for one in self.drains) for name in names}

    def peaks(self) -> dict[str, int]:
        """The most bytes that each process held in any round."""
        return {name: max(one.peak.get(name, 0) for one in self.drains) for name in self.drains[0].peak}


@dataclass(slots=True)
class Run:
    """One run on a deployment that ``create`` has made."""

    deployment: Deployment
    plan: Plan
    say: Callable[[str, int, int], None]
    """What happens now, how far it is, of how many."""
    _changes: Changes = field(default_factory=lambda: Changes(seed=1))

    def run(self) -> Result:
        """Warm up, measure, and leave every process stopped."""
        plan = self.plan
        self.deployment.start()
        with Sinks(self.deployment.settings) as sinks:
            ours = (RELAY, *self.deployment.pids())
            drain(self.deployment, sinks, self._changes, plan.warm_up, self._said("warm-up", plan.warm_up))
            idle = self._idle()
            self._said("floor: preparing", plan.rows)("", 0)
            floor.prepare(self.deployment, Changes(seed=1).take(plan.rows))
            floors, drains = self._rounds(sinks)
        rate = plan.rate or median(one.events_per_s for one in drains) / 2
        steady = latency.measure(self.deployment, rate, plan.seconds, self._said("latency", latency.PROBES))
        return Result(plan, self._image(), idle, floors, drains, steady, ours)

    def _rounds(self, sinks: Sinks) -> tuple[list[Floor], list[Drain]]:
        floors, drains = [], []
        for number in range(1, self.plan.rounds + 1):
            say = self._said(f"round {number} of {self.plan.rounds}", self.plan.rows)
            say("floor", 0)
            floors.append(floor.measure(self.deployment))
            drains.append(drain(self.deployment, sinks, self._changes, self.plan.rows, say))
        return floors, drains

    def _idle(self) -> dict[str, float]:
        self.deployment.start_relay()
        pids = {**self.deployment.pids(), **servers()}
        before = proc.cpu_seconds(pids)
        self._said("idle", 0)("", 0)
        time.sleep(_IDLE)
        spent = proc.differences(proc.cpu_seconds(pids), before)
        self.deployment.stop_relay()
        return {name: seconds / _IDLE for name, seconds in spent.items()}

    def _image(self) -> float:
        with psycopg.connect(self.deployment.writer_url) as session:
            row = session.execute(f"SELECT avg(length({IMAGE}))::float8 FROM payments").fetchone()  # noqa: S608  ours
        return float(row[0]) if row else 0.0

    def _said(self, stage: str, of: int) -> Say:
        return lambda what, done: self.say(f"{stage}: {what}" if what else stage, done, of)
