"""One run: the parts in order, each on a deployment made anew, with nothing else at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from bench.lanes import baseline, costs, memory, troubles
from bench.lanes.events import names
from bench.lanes.phases import RATE, Flow, Phase, Stage
from bench.lanes.result import PARTS, Result
from bench.lanes.site import WATCHED, LaneSite
from bench.lanes.troubles import MERCHANTS, TROUBLES, Lengths

Say = Callable[[str, int, int], None]
NewSite = Callable[[], AbstractContextManager[LaneSite]]
"""A deployment with nothing in it."""
_WARM_UP = 2000
SLOW_GROUP = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do. `grouped`, `single`: events drained by turns of fifty lanes, of one; `plain`: by events in a task.

    `group`: lanes in a turn beside trouble, or None: fifty, and one beside a slow merchant, whom no bulk sink has.
    """

    lengths: Lengths
    merchants: tuple[int, ...] = (10, 1000, 10_000, 100_000)
    grouped: int = 300_000
    single: int = 20_000
    plain: tuple[tuple[int, int], ...] = ((1, 20_000), (100, 200_000))
    backlogs: tuple[int, int] = (100_000, 5_000_000)
    group: int | None = None
    parts: tuple[str, ...] = PARTS

    @classmethod
    def of(cls, rounds: int, seconds: float, flood: float, group: int | None, parts: tuple[str, ...]) -> Plan:
        """As the command line has it."""
        return cls(Lengths(seconds, flood, 1_000_000, rounds), group=group, parts=parts)

    def quick(self) -> Plan:
        """A trial of a few minutes, whose figures mean little."""
        return replace(
            self,
            lengths=Lengths(seconds=5.0, flood=10.0, burst=50_000, rounds=1),
            merchants=(10, 1000),
            grouped=20_000,
            single=2000,
            plain=((1, 2000), (100, 20_000)),
            backlogs=(20_000, 100_000),
        )


@dataclass(slots=True)
class Run:
    """Measures the plan's parts; `say` shows what happens now, how far it is, of how many."""

    new_site: NewSite
    plan: Plan
    say: Say

    def run(self) -> Result:
        """Everything; no process is left."""
        result = Result()
        parts: Mapping[str, Callable[[Result], None]] = {
            "cpu": self._cpu,
            "latency": self._latency,
            "memory": self._memory,
        }
        for part in self.plan.parts:
            if part in TROUBLES:
                self._trouble(part, result)
            else:
                parts[part](result)
        return result

    def _cpu(self, result: Result) -> None:
        plan = self.plan
        for merchants in plan.merchants:
            with self.new_site() as site:
                result.costs += costs.measure(site, merchants, plan.grouped, plan.single, self.say)
                if merchants == baseline.MERCHANTS:
                    for size, events in plan.plain:
                        result.plain[size] = baseline.measure(site, events, size, self.say)

    def _latency(self, result: Result) -> None:
        with self.new_site() as site:
            site.start_worker(WATCHED[50])
            site.start_bridge(WATCHED[50])
            stage = Stage(site, lambda done, of: self.say(f"latency at {RATE:.0f} events/s", done, of))
            stage.play({"others": Flow(names(MERCHANTS), RATE, _WARM_UP)})
            seconds = self.plan.lengths.seconds
            for _ in range(self.plan.lengths.rounds):
                samples, late = stage.play({"others": Flow(names(MERCHANTS), RATE, round(RATE * seconds))})
                result.steady.append(Phase(False, samples["others"], [], late, seconds))

    def _trouble(self, trouble: str, result: Result) -> None:
        group = self.plan.group or (SLOW_GROUP if trouble == "slow" else 50)
        with self.new_site() as site:
            result.isolations.append(troubles.measure(site, trouble, group, self.plan.lengths, self.say))

    def _memory(self, result: Result) -> None:
        with self.new_site() as site:
            result.memory = memory.measure(site, self.plan.backlogs, self.say)
