"""The lanes of one consumer in memory: the same answers as ``RedisLaneStore``, which the contract suite compares.

Tests move its clock (``now``, milliseconds), fill it up (``full``), empty it (``lose``) and damage lanes (``lanes``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.consumer import Outcome
from pipeline.domain.routing import is_snapshot_lane, merchant_of_lane
from pipeline.errors import EpochLostError, FencedError, StoreFullError
from pipeline.lanes.claim import (
    Claim,
    ClaimedLane,
    Entry,
    FailingLane,
    Finished,
    Overview,
    Step,
    TurnLimits,
)
from pipeline.ports import Append, Appended, News, Tenure

_LONG = 25  # as in step.lua
_EXPIRED = "the turn ended without an answer"


@dataclass(slots=True)
class MemoryLane:
    """One lane; None where Redis has lost a field."""

    partition: int | None
    enqueued: int | None
    acknowledged: int | None
    incarnation: int | None
    entries: list[Entry] = field(default_factory=list)
    claim: int | None = None
    failures: int = 0
    not_before: int = 0
    linger_until: int | None = None
    reason: str = ""
    parked: str | None = None
    faults: int = 0
    accepted_then: int | None = None

    def sound(self, partition: int) -> bool:
        """True unless something of the lane is missing."""
        if self.partition != partition or self.enqueued is None or self.acknowledged is None:
            return False
        return self.enqueued == (self.entries[-1].offset if self.entries else self.acknowledged)

    def meant(self, append: Append, tenure: Tenure) -> bool:
        """True when it is the lane that the bridge named, or one that it may adopt."""
        if self.incarnation is None:
            return False
        return self.incarnation == append.incarnation or (
            append.incarnation is None and self.incarnation <= tenure.drawn
        )

    def follows(self, append: Append) -> bool:
        """True when the events come after what the lane has."""
        if append.previous is None or append.previous == self.enqueued:
            return True
        return self.enqueued in append.offsets


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    until: int = 0
    probe: int | None = None


class MemoryLaneStore:
    """Both sides of a consumer's lanes: the bridge's (``LaneStore``) and the workers'."""

    def __init__(self, limits: TurnLimits | None = None) -> None:
        self.limits = limits or TurnLimits()
        self.now = 1_000_000
        self.full = False
        self._epochs = itertools.count(1)
        self.lose()

    def lose(self) -> None:
        """Everything is gone, as after FLUSHALL."""
        self.lanes: dict[str, MemoryLane] = {}
        self.due: dict[str, int] = {}
        self.leases: dict[int, int] = {}
        self.turns: dict[int, tuple[str, ...]] = {}
        self.news: dict[int, list[News]] = {}
        self.fences: dict[int, int] = {}
        self._epoch: str | None = None
        self.accepted = 0
        self._token = 0
        self._breaker = _Breaker()

    # The bridge's side

    def epoch(self) -> str:
        if self._epoch is None:
            self._epoch = f"epoch-{next(self._epochs)}"
        return self._epoch

    def add(self, epoch: str, tenures: Mapping[int, Tenure], appends: Sequence[Append]) -> Sequence[Appended]:
        if self.full:
            raise StoreFullError("lane store: out of memory")
        self._guard(epoch, {partition: tenure.fence for partition, tenure in tenures.items()})
        return [self._add(append, tenures[append.partition]) for append in appends]

    def acknowledged(self, epoch: str, partition: int, limit: int = 1000) -> Sequence[News]:
        self._guard(epoch, {})
        waiting = self.news.get(partition, [])
        taken = waiting[:limit]
        del waiting[:limit]
        return taken

    def reset(
        self, epoch: str, fence: int, partition: int, lane: str, incarnation: int, base: int
    ) -> Appended:
        self._guard(epoch, {partition: fence})
        found = self.lanes.get(lane)
        if found is None or found.incarnation is None or found.incarnation < incarnation:
            found = self.lanes[lane] = MemoryLane(partition, base, base, incarnation)
            self.due.pop(lane, None)
        fits = found.incarnation == incarnation and found.sound(partition)
        return _appended(lane, partition, found, damaged=not fits)

    def _guard(self, epoch: str, fences: Mapping[int, int]) -> None:
        if epoch != self._epoch:
            raise EpochLostError("lane store: emptied")
        for partition, fence in fences.items():
            if fence < self.fences.get(partition, 0):
                raise FencedError(f"partition {partition} has a newer bridge")
        for partition, fence in fences.items():
            if fence != self.fences.get(partition):
                self.fences[partition] = fence
                self.news.pop(partition, None)

    def _add(self, append: Append, tenure: Tenure) -> Appended:
        lane = self.lanes.get(append.lane)
        if lane is None:
            known = append.previous is not None or append.incarnation is not None
            if known or not append.offsets:
                return Appended(append.lane, append.partition, -1, -1, -1, damaged=known)
            base = append.offsets[0] - 1
            lane = self.lanes[append.lane] = MemoryLane(append.partition, base, base, tenure.drawn)
        if not lane.meant(append, tenure) or not lane.sound(append.partition) or not lane.follows(append):
            return _appended(append.lane, append.partition, lane, damaged=True)
        self._extend(lane, append)
        return _appended(append.lane, append.partition, lane)

    def _extend(self, lane: MemoryLane, append: Append) -> None:
        enqueued = _number(lane.enqueued)
        entries = [Entry(o, v) for o, v in zip(append.offsets, append.values, strict=True) if o > enqueued]
        lane.entries += entries
        if entries:
            lane.enqueued = entries[-1].offset
        if lane.claim is not None and lane.claim not in self.leases:
            lane.claim = None
        if lane.claim is not None:
            if self.limits.linger and lane.linger_until is None:
                lane.linger_until = self.now + self.limits.linger
        elif lane.entries and lane.parked is None:
            full = len(lane.entries) >= self.limits.events
            self._wait(append.lane, self.now if full else self.now + self.limits.linger)

    def _wait(self, name: str, due: int) -> None:
        due = max(due, self.lanes[name].not_before)
        self.due[name] = min(due, self.due.get(name, due))

    # The workers' side

    def step(
        self,
        finished: Sequence[Finished] = (),
        *,
        claim: bool = True,
        floor: int = 0,
        jitter: float = 1.0,
    ) -> Step:
        refused = sum(self._finish(one, jitter) for one in finished)
        self._expire()
        got = self._claim(floor) if claim else None
        more = any(due <= self.now for due in self.due.values())
        return Step(refused, 0 if got and more else self._next_due(), got)

    def renew(self, tokens: Iterable[int]) -> frozenset[int]:
        held = frozenset(token for token in tokens if token in self.leases)
        self.leases.update(dict.fromkeys(held, self.now + self.limits.lease))
        return held

    def release(self, token: int) -> None:
        for name in self._end(token):
            self._open(name, self.now)

    def overview(self, most: int = 20) -> Overview:
        failing = sorted((name, lane) for name, lane in self.lanes.items() if lane.failures)
        lengths = sorted(self.lengths(self.lanes).items(), key=lambda item: (-item[1], item[0]))
        return Overview(
            ready=len(self.due),
            snapshots=sum(map(is_snapshot_lane, self.due)),
            claimed=sum(len(names) for names in self.turns.values()),
            failing=tuple(_failing(name, lane) for name, lane in failing[:most]),
            failing_count=len(failing),
            longest=tuple((name, length) for name, length in lengths[:most] if length),
            sink_failures=self._breaker.failures,
        )

    def lengths(self, lanes: Iterable[str]) -> dict[str, int]:
        return {name: len(self.lanes[name].entries) if name in self.lanes else 0 for name in lanes}

    def _finish(self, finished: Finished, jitter: float) -> int:
        token = finished.claim.token
        if token not in self.leases:
            return len(finished.outcomes)
        claimed = {lane.merchant: lane for lane in finished.claim.lanes}
        alone = len(self.turns[token]) == 1
        mine = [
            outcome for outcome in finished.outcomes if self._holds(claimed[outcome.merchant].name, token)
        ]
        for outcome in mine:
            self._settle(claimed[outcome.merchant], outcome, alone=alone)
        self._judge(token, {outcome.kind for outcome in mine}, jitter)
        for name in self._end(token):
            self._fail(name, "the turn left the lane undecided", own=alone)
        return len(finished.outcomes) - len(mine)

    def _holds(self, name: str, token: int) -> bool:
        return name in self.lanes and self.lanes[name].claim == token

    def _settle(self, claimed: ClaimedLane, outcome: Outcome, *, alone: bool) -> None:
        name, lane = claimed.name, self.lanes[claimed.name]
        if outcome.entries:
            self._accept(claimed, outcome.entries)
        if outcome.entries or outcome.kind == "done":
            lane.failures, lane.reason, lane.faults, lane.accepted_then = 0, "", 0, None
            lane.not_before = 0
        if outcome.kind == "park":
            self._park(name, outcome.reason)
        elif outcome.kind in ("retry", "undecided"):
            own = alone or outcome.kind == "retry"
            self._fail(name, outcome.reason, outcome.delay_ms, own=own)
        else:
            full = len(lane.entries) >= self.limits.events or lane.linger_until is None
            self._open(name, self.now if full else _number(lane.linger_until))

    def _accept(self, claimed: ClaimedLane, entries: int) -> None:
        lane = self.lanes[claimed.name]
        if lane.entries and lane.entries[0].offset == claimed.entries[0].offset:
            del lane.entries[:entries]
        lane.acknowledged = claimed.entries[entries - 1].offset
        self.accepted += 1
        self._tell(claimed.name, claimed.partition)

    def _fail(self, name: str, reason: str, delay: int = 0, *, own: bool) -> None:
        if own and self._fails_for_good(self.lanes[name]):
            self._park(name, reason)
            return
        lane = self.lanes[name]
        lane.failures += 1
        lane.reason = reason
        lane.not_before = self.now + delay
        self._open(name, lane.not_before)

    def _fails_for_good(self, lane: MemoryLane) -> bool:
        """Counts a failure of the lane's own; only one since which others were accepted counts towards parking."""
        others = lane.accepted_then != self.accepted
        lane.faults += others
        lane.accepted_then = self.accepted
        return others and lane.faults > 1 and 0 < self.limits.max_failures <= lane.faults

    def _park(self, name: str, reason: str) -> None:
        lane = self.lanes[name]
        lane.claim = lane.linger_until = None
        lane.failures += 1
        lane.parked = lane.reason = reason
        self._tell(name, _number(lane.partition))

    def _tell(self, name: str, partition: int) -> None:
        lane = self.lanes[name]
        if lane.incarnation is not None and lane.acknowledged is not None:
            told = News(name, lane.incarnation, lane.acknowledged, lane.parked)
            self.news.setdefault(partition, []).append(told)

    def _open(self, name: str, due: int) -> None:
        lane = self.lanes[name]
        lane.claim = None
        lane.linger_until = None
        if lane.entries:
            self._wait(name, due)

    def _end(self, token: int) -> list[str]:
        """Drop a lease; the lanes that it still held."""
        self.leases.pop(token, None)
        if self._breaker.probe == token:
            self._breaker.probe = None
        return [name for name in self.turns.pop(token, ()) if self._holds(name, token)]

    def _expire(self) -> None:
        for token in sorted(token for token, expiry in self.leases.items() if expiry <= self.now):
            alone = len(self.turns[token]) == 1
            for name in self._end(token):
                failures = self.lanes[name].failures
                delay = min(60_000, 250 * 2**failures) if failures else 0
                self._fail(name, _EXPIRED, delay, own=alone)

    def _judge(self, token: int, kinds: set[str], jitter: float) -> None:
        breaker = self._breaker
        if "unavailable" in kinds:
            if breaker.failures == 0 or breaker.probe == token:
                pause = min(30_000, 500 * 2**breaker.failures)
                self._breaker = _Breaker(breaker.failures + 1, self.now + int(pause * jitter))
        elif "done" in kinds:
            self._breaker = _Breaker()

    def _claim(self, floor: int) -> Claim | None:
        breaker = self._breaker
        if breaker.failures and (self.now < breaker.until or breaker.probe in self.leases):
            return None
        token = max(self._token + 1, floor + 1, self.now * 1000)
        token += (token - self._token + 1) % 2
        lanes = self._take(
            self._candidates(token, snapshots=False) or self._candidates(token, snapshots=True)
        )
        if not lanes:
            return None
        self._token = token
        self.leases[token] = self.now + self.limits.lease
        self.turns[token] = tuple(lane.name for lane in lanes)
        if breaker.failures:
            breaker.probe = token
        for lane in lanes:
            self._mark(lane, token)
        return Claim(token, lanes)

    def _candidates(self, token: int, *, snapshots: bool) -> list[str]:
        """The lanes of one kind that a turn may have, oldest first: healthy ones, or such as fail."""
        waiting = sorted((due, name) for name, due in self.due.items() if is_snapshot_lane(name) == snapshots)
        healthy = [(due, name) for due, name in waiting if not self.lanes[name].failures]
        failing = [name for due, name in waiting if self.lanes[name].failures and due <= self.now]
        one_is_due = bool(healthy) and healthy[0][0] <= self.now
        company = [name for _, name in healthy][: self.limits.group] if one_is_due else []
        failing = failing[: max(1, self.limits.group // 2)]
        if not snapshots and self.limits.linger == 0 and len(company) < self.limits.group:
            company = self._as_the_oldest(company)
        first, second = (failing, company) if token % 2 == 0 else (company, failing)
        return first or second

    def _as_the_oldest(self, names: Sequence[str]) -> list[str]:
        is_long = [len(self.lanes[name].entries) > _LONG for name in names]
        return [name for name, long in zip(names, is_long, strict=True) if long == is_long[0]]

    def _mark(self, claimed: ClaimedLane, token: int) -> None:
        lane = self.lanes[claimed.name]
        lane.claim = token
        leftover = len(lane.entries) > len(claimed.entries)
        lane.linger_until = self.now if leftover and self.limits.linger else None
        del self.due[claimed.name]

    def _take(self, names: Sequence[str]) -> tuple[ClaimedLane, ...]:
        lanes: list[ClaimedLane] = []
        events, size, most = self.limits.events, self.limits.bytes, self.limits.group
        for name in names:
            lane = self.lanes[name]
            most = min(most, max(1, self.limits.group >> lane.failures))
            if len(lanes) >= most:
                break
            if lane.partition is None:  # damaged: the bridge's next ADD finds out
                del self.due[name]
                continue
            entries = _head(lane.entries, events, size, alone=not lanes)
            if not entries:
                break
            merchant = merchant_of_lane(name)
            lanes.append(
                ClaimedLane(merchant, lane.partition, lane.failures, entries, is_snapshot_lane(name))
            )
            events -= len(entries)
            size -= sum(len(entry.value) for entry in entries)
        return tuple(lanes)

    def _next_due(self) -> int:
        times = [*self.due.values(), *self.leases.values()]
        wait = min(times, default=self.now + 1000) - self.now
        if self._breaker.failures:
            wait = max(wait, self._breaker.until - self.now)
        return min(1000, max(1, wait))


def _head(entries: Sequence[Entry], events: int, size: int, *, alone: bool) -> tuple[Entry, ...]:
    taken: list[Entry] = []
    for entry in entries[: max(0, events)]:
        size -= len(entry.value)
        if size < 0 and not (alone and not taken):
            break
        taken.append(entry)
    return tuple(taken)


def _failing(name: str, lane: MemoryLane) -> FailingLane:
    oldest = lane.entries[0].offset if lane.entries else None
    merchant, partition = merchant_of_lane(name), _number(lane.partition)
    return FailingLane(
        merchant,
        partition,
        lane.failures,
        lane.reason,
        oldest,
        is_snapshot_lane(name),
        lane.parked is not None,
    )


def _appended(name: str, partition: int, lane: MemoryLane, *, damaged: bool = False) -> Appended:
    numbers = _number(lane.enqueued), _number(lane.acknowledged), _number(lane.incarnation)
    return Appended(name, partition, *numbers, damaged, None if damaged else lane.parked)


def _number(value: int | None) -> int:
    return -1 if value is None else value
