"""The people of a chaos run: they ask of lanes what ``pipeline lanes`` asks, by the same rows of the control database.

Whatever has stopped, by their word or because it failed, somebody lets go again after a while, or skips what is in its way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import Random

from pipeline.bridge import progress
from pipeline.chaos.faults import Fault, Field
from pipeline.chaos.site import Site
from pipeline.control import detached, requests
from pipeline.control.detached import DetachedLane
from pipeline.control.requests import Asked
from pipeline.domain.routing import merchant_of_lane, partition_of
from pipeline.errors import PipelineError
from pipeline.ports import Verb

_ACTOR, _REASON = "pipeline chaos", "chaos"
_SHORTEST, _LONGEST = 2.0, 6.0  # seconds that a stopped lane waits for somebody
_AGAIN = 4.0  # seconds until they ask once more
_GLANCE = 1.0


class Operators:
    """Let go of what is stopped; ``hasten`` when nothing is to stay so."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._dice = Random(seed)
        self._due: dict[str, float] = {}
        self._to_skip: dict[str, int] = {}
        self._looked = 0.0
        self._hasty = False

    def ask(self, verb: Verb, merchant: str, offset: int | None = None, expected: int | None = None) -> None:
        """Write one request."""
        topic = self._site.settings.datastream
        partition = partition_of(merchant, topic.partitions)
        requests.ask(
            self._site.database,
            [Asked(self._site.consumer, topic.topic, partition, merchant, verb, _ACTOR, _REASON, offset, expected)],
        )  # fmt: skip

    def skip_when_parked(self, merchant: str, number: int) -> None:
        """Somebody will leave this number out, not mend it."""
        self._to_skip[merchant] = number

    def hasten(self) -> None:
        """From now on nobody waits."""
        self._hasty = True
        self._due.clear()

    def tend(self) -> None:
        """Look after what is stopped. A database that does not answer is asked again."""
        now = time.monotonic()
        if now < self._looked + _GLANCE:
            return
        self._looked = now
        try:
            stopped = self.stopped()
            asked = {one.lane for one in requests.open_requests(self._site.database, self._site.consumer)}
            for row in stopped:
                if row.lane in asked:
                    continue
                wait = 0.0 if self._hasty else self._dice.uniform(_SHORTEST, _LONGEST)
                if self._due.setdefault(row.lane, now + wait) <= now:
                    self._let_go(row)
                    self._due[row.lane] = now + _AGAIN
        except PipelineError:
            return
        lanes = {row.lane for row in stopped}
        self._due = {lane: due for lane, due in self._due.items() if lane in lanes}

    def stopped(self) -> list[DetachedLane]:
        """Lanes that are paused or parked."""
        return detached.rows(self._site.database, self._site.consumer, states=["paused", "parked"])

    def idle(self) -> bool:
        """True when no lane is detached and nothing is asked."""
        database, consumer = self._site.database, self._site.consumer
        return not detached.rows(database, consumer, limit=1) and not requests.open_requests(
            database, consumer
        )

    def _let_go(self, row: DetachedLane) -> None:
        merchant = merchant_of_lane(row.lane)
        number = self._to_skip.get(merchant)
        at = None if number is None else self._site.sink.met(merchant, number)
        if number is not None and at is not None and row.first <= at:
            del self._to_skip[merchant]
            self._site.sink.allow_skip(merchant, number)
            self.ask("skip", row.lane, at + 1, row.first)
            return
        self._site.sink.cure([merchant])
        self.ask("resume" if row.state == "paused" else "release", row.lane)


def pause_lanes(field: Field, dice: Random) -> str:
    """Some merchants' lanes are paused, and resumed by somebody."""
    merchants = field.merchants(dice, dice.randint(1, 8))
    for merchant in merchants:
        field.operators.ask("pause", merchant)
    return ", ".join(merchants)


def pause_consumer(field: Field, dice: Random) -> str:
    """The whole consumer is held for a while."""
    database, consumer, seconds = field.site.database, field.site.consumer, dice.uniform(1, 4)
    requests.pause_consumer(database, consumer, actor=_ACTOR, reason=_REASON)

    def resume() -> None:
        requests.resume_consumer(database, consumer, actor=_ACTOR, reason=_REASON)

    field.timers.later(seconds, resume)
    return f"for {seconds:.1f} s"


def rewind(field: Field, dice: Random) -> str:
    """Some merchants get again what they had from a place on."""
    merchants, settings = field.merchants(dice, dice.randint(1, 6)), field.site.settings
    committed = progress.lag(settings, field.site.consumer)
    for merchant in merchants:
        before = committed[partition_of(merchant, settings.datastream.partitions)][0]
        field.operators.ask("rewind", merchant, int((before or 0) * dice.random()))
    return ", ".join(merchants)


def resync(field: Field, dice: Random) -> str:
    """Some merchants' lanes are made anew."""
    merchants = field.merchants(dice, dice.randint(1, 8))
    for merchant in merchants:
        field.operators.ask("resync", merchant)
    return ", ".join(merchants)


def park(field: Field, dice: Random) -> str:
    """Some merchants' next event is poison: their lanes are parked, and released once the sink can take it."""
    return _poison(field, dice, skipped=False)


def skip(field: Field, dice: Random) -> str:
    """Some merchants' next event is poison, and somebody skips it."""
    return _poison(field, dice, skipped=True)


def _poison(field: Field, dice: Random, *, skipped: bool) -> str:
    merchants = field.merchants(dice, dice.randint(1, 6))
    for merchant in merchants:
        number = field.load.acknowledged[merchant] + 1
        field.site.sink.poison(merchant, number, "park")
        if skipped:
            field.operators.skip_when_parked(merchant, number)
    return ", ".join(merchants)


PEOPLE: Mapping[str, Fault] = {
    "pause": Fault(pause_lanes, 2),
    "pause-consumer": Fault(pause_consumer, 1),
    "rewind": Fault(rewind, 2),
    "resync": Fault(resync, 1),
    "park": Fault(park, 2),
    "skip": Fault(skip, 2),
}
