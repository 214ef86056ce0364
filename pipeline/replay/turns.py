"""The turns of a replay: each merchant's events in order, a failing merchant alone, and then without the rest of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipeline.consumer import Outcome, Rejection
from pipeline.lanes.claim import Claim, ClaimedLane, Entry, TurnLimits
from pipeline.lanes.turn import Backoff, Consumption, Handler, run_turn

What = Literal["done", "rejected", "failed", "skipped", "unavailable"]
Pause = Callable[[float], None]


class Published(NamedTuple):
    """One record to be replayed: whose it is, where it stands, and its bytes as they came."""

    merchant: str
    partition: int
    offset: int
    value: bytes


class Told(NamedTuple):
    """What became of one record.

    ``failed``: its merchant was given up at it; ``skipped``: it came after that; ``unavailable``: the sink took nothing.
    """

    record: Published
    what: What
    reason: str = ""


@dataclass(slots=True)
class _Lane:
    merchant: str
    records: deque[Published] = field(default_factory=deque)
    failures: int = 0
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class _Head:
    lane: _Lane
    taken: Sequence[Published]


class Turns:
    """Runs one consumer's function over windows of records; every record of a window is told before the next one.

    A merchant is tried `attempts` times in a row before it is given up, and so is a sink that accepts nobody; `pause`
    waits so many seconds in between.
    """

    def __init__(
        self,
        consumer: str,
        handler: Handler,
        limits: TurnLimits,
        *,
        partitions: int,
        attempts: int,
        backoff: Backoff,
        pause: Pause,
    ) -> None:
        self._limits = limits
        self._attempts = attempts
        self._backoff = backoff
        self._pause = pause
        self._aside: dict[tuple[int, int], str] = {}
        self._consumption = Consumption(
            consumer, handler, self._set_aside, backoff, partitions, limits.group == 1
        )
        self._given_up: set[str] = set()
        self._token = 0
        self._refused = 0
        self.unavailable = ""  # why the sink took nothing, once that was too often

    def run(self, window: Iterable[Published]) -> Iterator[Told]:
        """Run the function over a window, and tell what became of each of its records, a merchant's in order."""
        lanes: dict[str, _Lane] = {}
        for record in window:
            if record.merchant in self._given_up:
                yield Told(record, "skipped", "after one that failed")
            else:
                lanes.setdefault(record.merchant, _Lane(record.merchant)).records.append(record)
        waiting = deque(lanes.values())
        while waiting and not self.unavailable:
            yield from self._turn(waiting)
        for lane in waiting:
            yield from (Told(record, "unavailable", self.unavailable) for record in lane.records)

    def _turn(self, waiting: deque[_Lane]) -> Iterator[Told]:
        heads = self._heads(waiting)
        if delay := heads[0].lane.delay:
            self._pause(delay)
        self._aside.clear()
        self._token += 1
        claim = Claim(self._token, tuple(map(_claimed, heads)))
        outcomes = run_turn(self._consumption, claim).outcomes
        for head, outcome in zip(heads, outcomes, strict=True):
            yield from self._settle(head, outcome)
            if head.lane.records:
                waiting.append(head.lane)
        self._judge(outcomes)

    def _heads(self, waiting: deque[_Lane]) -> list[_Head]:
        """Take out the next lanes, oldest first, within a turn's limits; one that failed goes alone."""
        heads: list[_Head] = []
        events, size = self._limits.events, self._limits.bytes
        while waiting and len(heads) < self._limits.group and events > 0:
            if heads and waiting[0].failures:
                break
            taken = _head(waiting[0].records, events, size, is_first=not heads)
            if not taken:
                break
            heads.append(_Head(waiting.popleft(), taken))
            events, size = events - len(taken), size - sum(len(record.value) for record in taken)
            if heads[0].lane.failures:
                break
        return heads

    def _settle(self, head: _Head, outcome: Outcome) -> Iterator[Told]:
        lane = head.lane
        for record in head.taken[: outcome.entries]:
            lane.records.popleft()
            reason = self._aside.get((record.partition, record.offset))
            yield Told(record, "done") if reason is None else Told(record, "rejected", reason)
        if outcome.entries:
            lane.failures, lane.delay = 0, 0.0
        if outcome.kind in ("retry", "undecided"):
            lane.failures, lane.delay = lane.failures + 1, outcome.delay_ms / 1000
        if outcome.kind == "park" or lane.failures >= self._attempts:
            yield from self._give_up(lane, outcome.reason)

    def _give_up(self, lane: _Lane, reason: str) -> Iterator[Told]:
        self._given_up.add(lane.merchant)
        what: What = "failed"
        while lane.records:
            yield Told(lane.records.popleft(), what, reason)
            what, reason = "skipped", "after one that failed"

    def _judge(self, outcomes: Sequence[Outcome]) -> None:
        away = next((outcome for outcome in outcomes if outcome.kind == "unavailable"), None)
        if away is None:
            self._refused = 0
        elif self._refused + 1 >= self._attempts:
            self.unavailable = away.reason
        else:
            self._pause(self._backoff.milliseconds(self._refused) / 1000)
            self._refused += 1

    def _set_aside(self, rejections: Sequence[Rejection]) -> None:
        self._aside.update({(one.partition, one.offset): one.reason for one in rejections})


def _head(records: Iterable[Published], events: int, size: int, *, is_first: bool) -> list[Published]:
    """The first of a lane that a turn has room for; the first lane of a turn gives at least one."""
    taken: list[Published] = []
    for record in records:
        size -= len(record.value)
        if len(taken) == events or (size < 0 and (taken or not is_first)):
            break
        taken.append(record)
    return taken


def _claimed(head: _Head) -> ClaimedLane:
    entries = tuple(Entry(record.offset, record.value) for record in head.taken)
    return ClaimedLane(head.lane.merchant, head.taken[0].partition, head.lane.failures, entries)
