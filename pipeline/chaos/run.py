"""The loop of a chaos run: strike what is due, tend the processes, look at the sink; then wait for rest and judge."""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from pipeline.bridge import progress
from pipeline.chaos.faults import Fault, Field, NotNow
from pipeline.chaos.load import Load
from pipeline.chaos.operators import Operators
from pipeline.chaos.plan import Strike, schedule
from pipeline.chaos.site import Site
from pipeline.chaos.verdict import Count, Sample, Struck, Verdict, counted, findings
from pipeline.control import requests
from pipeline.errors import PipelineError

_GLANCE, _LOOK = 0.05, 1.0  # seconds between two rounds, and between two looks at the sink
_AGAIN = 2.0  # seconds until a fault that found nobody strikes
_ENDS = 3.0  # seconds a process has to end when all is told
BRIDGES, WORKERS = 2, 2

Say = Callable[[str, float, float], None]
"""What happens now, how much of it is done, of how much."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds` of traffic and faults; then rest, for which it waits `patience` seconds from each delivery on.

    `merchants`: the busiest first.
    """

    seed: int
    seconds: float
    merchants: Sequence[str]
    rate: float
    faults: Mapping[str, Fault]
    patience: float = 120.0


class Run:
    """One run on a site that is made; ``judge`` plays it to its end."""

    def __init__(self, site: Site, plan: Plan, say: Say) -> None:
        self._site = site
        self._plan = plan
        self._say = say
        self._load = Load(site.settings, plan.merchants, plan.rate, plan.seed)
        self._operators = Operators(site, plan.seed)
        self._field = Field(site, site.fleet(BRIDGES, WORKERS), self._load, self._operators)
        self._strikes = schedule(
            plan.seed, plan.seconds, {name: fault.weight for name, fault in plan.faults.items()}
        )
        self._struck: list[Struck] = []
        self._before: list[dict[str, int] | None] = []
        self._samples: list[Sample] = []
        self._began = self._looked = self._judged = 0.0
        self._gaps = False
        self._failure = ""

    def judge(self) -> Verdict:
        """Play, wait for rest, compare."""
        try:
            self._began = time.monotonic()
            self._load.start()
            self._play()
            stopped = self._now
            at_rest = not self._broken() and self._rest()
            return self._verdict(at_rest, self._now - stopped)
        finally:
            self._field.timers.hasten()
            self._field.timers.run()
            self._field.fleet.stop(_ENDS)

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    def _play(self) -> None:
        while (now := self._now) < self._plan.seconds and not self._broken():
            while self._strikes and self._strikes[0].at <= now:
                self._strike(self._strikes.pop(0))
            self._tend()
            self._say("chaos", now, self._plan.seconds)
        try:
            self._load.stop(at_once=self._broken())
        except PipelineError as error:
            self._failure = f"the load ended: {error}"

    def _rest(self) -> bool:
        """True once the consumer says that everything is accepted; then nothing more can come."""
        field, until = self._field, self._now + self._plan.patience
        field.timers.hasten()
        self._operators.hasten()
        ends: dict[int, int] = {}
        delivered = 0
        while self._now < until and not self._broken():
            self._tend()
            newest = self._samples[-1]
            self._say("until rest", newest.delivered, newest.published)
            if newest.delivered > delivered:
                delivered, until = newest.delivered, self._now + self._plan.patience
            if not field.timers.idle or self._now < self._looked + _LOOK:
                continue
            self._looked = self._now
            try:
                ends = ends or progress.end_offsets(self._site.settings, self._site.consumer)
                if (
                    progress.accepted(self._site.settings, self._site.consumer, ends)
                    and self._operators.idle()
                ):
                    return True
            except PipelineError:
                continue
        return False

    def _tend(self) -> None:
        self._field.timers.run()
        self._field.fleet.tend()
        self._operators.tend()
        if not self._samples or self._now > self._samples[-1].at + _LOOK:
            self._sample()
        time.sleep(_GLANCE)

    def _strike(self, strike: Strike) -> None:
        try:
            whom = self._plan.faults[strike.fault].strike(self._field, Random(strike.seed))
        except (NotNow, PipelineError):  # what it needs is away itself: a little later
            if self._now + _AGAIN < self._plan.seconds:
                insort(self._strikes, replace(strike, at=self._now + _AGAIN), key=lambda one: one.at)
            return
        self._struck.append(Struck(round(self._now, 2), strike.fault, whom, None))
        self._before.append(dict(self._load.acknowledged))

    def _broken(self) -> bool:
        """True when the verdict is known before the end."""
        if self._now > self._judged + _LOOK / 2:
            self._judged, self._gaps = self._now, bool(self._site.sink.gaps())
        return bool(self._failure) or self._load.failure is not None or self._gaps

    def _count(self) -> Count:
        sink = self._site.sink
        return counted(dict(self._load.acknowledged), sink.delivered(), sink.allowed())

    def _sample(self) -> None:
        have, allowed = self._site.sink.delivered(), self._site.sink.allowed()
        count = counted(dict(self._load.acknowledged), have, allowed)
        self._samples.append(Sample(round(self._now, 2), count.published, count.delivered))
        for place, before in enumerate(self._before):
            if before is not None and not counted(before, have, allowed).missing:
                struck = self._struck[place]
                self._struck[place] = struck._replace(recovered=round(self._now - struck.at, 1))
                self._before[place] = None

    def _verdict(self, at_rest: bool, waited: float) -> Verdict:
        self._sample()
        have, gaps, count = self._site.sink.delivered(), self._site.sink.gaps(), self._count()
        recovery: dict[str, list[float]] = {}
        for struck in self._struck:
            if struck.recovered is not None:
                recovery.setdefault(struck.fault, []).append(struck.recovered)
        return Verdict(
            seed=self._plan.seed,
            seconds=round(self._now, 1),
            merchants=len(self._plan.merchants),
            published=count.published,
            delivered=count.delivered,
            lost=count.lacking,
            out_of_order=len(gaps),
            duplicates=sum(one.duplicates for one in have.values()),
            token_regressions=sum(one.regressions for one in have.values()),
            skipped=sum(one.skipped for one in have.values()),
            at_rest=at_rest,
            rest_after=round(waited, 1),
            faults=dict(Counter(struck.fault for struck in self._struck)),
            requests=requests.counted(self._site.database, self._site.consumer, refused=False),
            refused=requests.counted(self._site.database, self._site.consumer, refused=True),
            recovery=recovery,
            findings=findings(count, gaps, at_rest=at_rest, failure=self._failure),
            struck=self._struck,
            samples=self._samples,
        )
