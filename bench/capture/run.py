"""One run: the parts in order, each with nothing else at work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import psycopg

from bench.capture import commits, draining, memory, snapshots, standby, writers
from bench.capture.result import PARTS, Result
from bench.capture.site import SHOP, CaptureSite, Client
from bench.load import IMAGE, Changes

Say = Callable[[str, int, int], None]
WARM_UP = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do. `cell`: seconds of one statement on one table; `sizes`: rows of the two large transactions."""

    rows: int = 200_000
    rounds: int = 3
    seconds: float = 30.0
    cell: float = 2.0
    idle: float = 10.0
    sizes: tuple[int, int] = (200_000, 1_000_000)
    parts: tuple[str, ...] = PARTS

    @property
    def writer_rounds(self) -> int:
        """Short ones, and more of them."""
        return 2 * self.rounds - 1

    @property
    def warm_up(self) -> int:
        """Changes relayed before those that count."""
        return min(WARM_UP, self.rows)

    def quick(self) -> Plan:
        """A trial of a minute, whose figures mean little."""
        return Plan(20_000, 1, 5.0, 1.0, 2.0, (20_000, 60_000), self.parts)


@dataclass(slots=True)
class Run:
    """One run on a deployment that ``create`` has made; `say` shows what happens now, how far it is, of how many."""

    site: CaptureSite
    plan: Plan
    say: Say

    def run(self) -> Result:
        """Measure the plan's parts, and leave every process stopped."""
        result, plan, site = Result(), self.plan, self.site
        if "writers" in plan.parts:
            result.writers = writers.measure(site, plan.writer_rounds, plan.cell, self.say)
        if {"relay", "snapshot"} & set(plan.parts):
            filled = draining.fill(site, Changes(seed=1), plan.warm_up, plan.rows, self._of(plan.rows))
            result.image = self._image()
            if "relay" in plan.parts:
                result.drained = draining.measure(site, filled, plan.rounds, clients(), self.say)
        if "commits" in plan.parts:
            result.commits = commits.measure(site, plan.seconds, self._of(round(plan.seconds)))
        if "snapshot" in plan.parts:
            result.copied = snapshots.measure(site, plan.rounds, self.say)
        if "standby" in plan.parts:
            result.takeovers = standby.takeovers(site, plan.rounds, self.say)
            result.idle = standby.idle(site, plan.idle, self.say)
        if "memory" in plan.parts:
            result.peaks = dict(zip(plan.sizes, memory.measure(site, plan.sizes, self.say), strict=True))
        return result

    def _of(self, total: int) -> Callable[[str, int], None]:
        return lambda what, done: self.say(what, done, total)

    def _image(self) -> float:
        with psycopg.connect(self.site.writer_url_of(SHOP)) as session:
            row = session.execute(f"SELECT avg(length({IMAGE}))::float8 FROM payments").fetchone()  # noqa: S608  ours
        return float(row[0]) if row else 0.0


def clients() -> tuple[Client, ...]:
    """What a relay can hand its records to here; confluent-kafka is an extra."""
    every: tuple[Client, ...] = ("none", "kafka-python", "confluent-kafka")
    return every if find_spec("confluent_kafka") else every[:2]
