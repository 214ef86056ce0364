"""Healthy merchants beside one in trouble, in turn: healthy, trouble, healthy, trouble, …, healthy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from bench.lanes import publishing, watching
from bench.lanes.consumers import POISON, SLOW
from bench.lanes.draining import await_accepted
from bench.lanes.events import PARTITIONS, Envelopes, beside, elsewhere, names
from bench.lanes.phases import RATE, Flow, Phase, Stage
from bench.lanes.site import WATCHED, LaneSite
from pipeline.domain.routing import partition_of

Say = Callable[[str, int, int], None]
FLOOD, BURST = "flood", "burst"
TROUBLES = (FLOOD, POISON, SLOW, BURST)
MERCHANTS = 1000
FLOOD_RATE = 5000.0
_TROUBLE_RATE = 10.0  # events/s of the poisoned and of the slow merchant
_OWN_RATE = 10.0  # events/s of the healthy in the burst's partition
_WARM_UP = 2000
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was seen around one kind of trouble, in the order in which it was."""

    trouble: str
    group: int
    phases: list[Phase] = field(default_factory=list)

    def p99s(self, *, trouble: bool) -> list[float]:
        """Milliseconds of the healthy in each phase with or without trouble."""
        return [phase.p99 for phase in self.phases if phase.trouble == trouble]

    @property
    def change(self) -> float:
        """How much the others' median p99 is higher beside trouble: 0.2 is 20 %."""
        return watching.change(self.p99s(trouble=True), self.p99s(trouble=False))

    @property
    def spread(self) -> float:
        """How far the healthy rounds' p99 lie apart, as a fraction of their median."""
        return watching.spread(self.p99s(trouble=False))

    @property
    def own_troubled(self) -> list[float]:
        """The worst milliseconds of healthy events in the partition of the one in trouble, of each round of trouble."""
        return [
            max(sample.ms for sample in phase.own) for phase in self.phases if phase.trouble and phase.own
        ]

    @property
    def samples(self) -> int:
        """Those behind the least founded p99."""
        return min(len(phase.samples) for phase in self.phases)

    @property
    def healthy_p50(self) -> float:
        """Median milliseconds of the healthy rounds' medians."""
        values = [
            watching.quantile([one.ms for one in phase.samples], 50)
            for phase in self.phases
            if not phase.trouble
        ]
        return median(values)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds of a phase and of a flooded one, events of a burst, rounds of trouble."""

    seconds: float
    flood: float
    burst: int
    rounds: int


def measure(site: LaneSite, trouble: str, group: int, lengths: Lengths, say: Say) -> Isolation:
    """Play the phases with turns of up to `group` lanes."""
    consumer, found = WATCHED[group], Isolation(trouble, group)
    site.start_worker(consumer, _THREADS)
    site.start_bridge(consumer)
    play = _Play(site, consumer, trouble, lengths, say)
    play.warm_up()
    for number in range(1, lengths.rounds + 1):
        found.phases.append(play.phase(0))
        found.phases.append(play.phase(number))
    found.phases.append(play.phase(0))
    site.stop()
    return found


class _Play:
    def __init__(self, site: LaneSite, consumer: str, trouble: str, lengths: Lengths, say: Say) -> None:
        self._site, self._consumer, self._trouble, self._lengths, self._say = (
            site, consumer, trouble, lengths, say,
        )  # fmt: skip
        self._name = trouble
        self._stage = Stage(site, lambda done, of: say(f"{trouble}: {self._name}", done, of))

    def warm_up(self) -> None:
        """Everything runs, and every lane of the busy merchants exists."""
        self._name = "warming up"
        self._stage.play({"others": Flow(names(MERCHANTS), RATE, _WARM_UP)})

    def phase(self, number: int) -> Phase:
        """Round `number` of trouble; 0: none."""
        self._name = f"round {number}" if number else "healthy"
        self._say(f"{self._trouble}: {self._name}", 0, 0)
        troubled = (
            f"{POISON}{number}" if self._trouble == POISON else self._trouble
        )  # the poisoned stays failing
        others, own = names(MERCHANTS), []
        if self._trouble == BURST:
            partition = partition_of(troubled, PARTITIONS)
            others, own = elsewhere(others, partition), beside(others, partition)
            self._restart_on(troubled if number else None, f"burst{number}")
        seconds = self._lengths.flood if self._trouble == FLOOD and number else self._lengths.seconds
        flows = {"others": Flow(others, RATE, round(RATE * seconds))}
        if own:
            flows["own"] = Flow(own, _OWN_RATE, round(_OWN_RATE * seconds))
        if number and self._trouble != BURST:
            rate = FLOOD_RATE if self._trouble == FLOOD else _TROUBLE_RATE
            flows["trouble"] = Flow([troubled], rate, round(rate * seconds), watched=False)
        samples, late = self._stage.play(flows)
        if number and self._trouble == FLOOD:
            self._settle()
        return Phase(number > 0, samples["others"], samples.get("own", []), late, seconds)

    def _restart_on(self, merchant: str | None, source: str) -> None:
        """End the bridge, put the merchant's burst into the topic, and let a new bridge find it.

        From a source that was not there before: what a source says twice is dropped.
        """
        self._settle()
        self._site.require_no_doubles()
        self._site.end("bridge")
        if merchant is not None:
            envelopes, count = Envelopes(source), self._lengths.burst
            records = (envelopes.of(merchant) for _ in range(count))
            publishing.publish(
                self._site.bootstrap, self._site.topic, records,
                lambda done: self._say(f"publishing the burst of {self._name}", done, count),
            )  # fmt: skip
        self._site.start_bridge(self._consumer)

    def _settle(self) -> None:
        """Everything that was sent is accepted."""
        end = sum(self._site.end_offsets().values())
        await_accepted(
            self._site, self._consumer, end, end, lambda done: self._say("until all is accepted", done, end)
        )
