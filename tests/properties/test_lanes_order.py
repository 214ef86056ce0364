"""Whatever workers and a bridge do to a lane store, each lane's events reach the sink all and in order, changes first.

The sink here keeps no versions and refuses only tokens below the last it saw of a lane: what is proved is the
store's own. A history is any interleaving of appends, repeated and stale calls, claims, outcomes, dead workers and
forgetting; then the faults stop, and everything must have arrived.
"""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipeline.consumer import Outcome
from pipeline.errors import EpochLostError, FencedError
from pipeline.lanes.claim import Claim, ClaimedLane, Finished, TurnLimits
from pipeline.ports import Append, Tenure
from tests.fakes.lane_lab import LaneLab, MemoryLab, RedisLab

LANES = {"a": 0, "b": 0, "s.a": 1}  # and their partitions: the last one holds rows of snapshots
PARTITIONS = (0, 1)
LIMITS = TurnLimits(group=4, events=4, lease=60_000, max_failures=2)
lanes = st.sampled_from(tuple(LANES))


class Histories(RuleBasedStateMachine):
    """A partition of changes and one of snapshot rows, with their bridge, workers, and a sink that refuses gaps."""

    lab: LaneLab

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, list[int]] = defaultdict(list)
        self.offset = 0
        self.accepted: dict[str, int] = defaultdict(lambda: -1)
        self.tokens: dict[str, int] = defaultdict(int)
        self.highest = 0
        self.claims: list[Claim] = []
        self.living: dict[int, set[str]] = {}
        self.written: dict[int, dict[str, int]] = defaultdict(dict)
        self.stale: list[Callable[[], object]] = []
        self.blamed: dict[str, int] = defaultdict(int)
        self.fence = self.drawn = 0
        self.restart()

    # The bridge

    def restart(self) -> None:
        """A bridge begins: it knows nothing but the committed offsets, and draws a fence."""
        self.epoch = self.lab.store.epoch()
        self.fence += 1
        self.tenures = dict.fromkeys(PARTITIONS, Tenure(self.fence, self.drawn))
        self.incarnations: dict[str, int | None] = dict.fromkeys(LANES)
        self.sent: dict[str, int | None] = dict.fromkeys(LANES)
        self.acknowledged: dict[str, int] = dict.fromkeys(LANES, -1)

    @rule()
    def bridge_restarts(self) -> None:
        self.restart()

    @rule(lane=lanes, count=st.integers(1, 5))
    def records_come(self, lane: str, count: int) -> None:
        for _ in range(count):
            self.records[lane].append(self.offset)
            self.offset += 1

    @rule(whose=st.sets(lanes, min_size=1), most=st.integers(0, 6))
    def bridge_adds(self, whose: set[str], most: int) -> None:
        self.add([self.next_append(lane, most) for lane in sorted(whose)])

    @precondition(lambda self: self.stale)
    @rule(index=st.integers(0, 1000))
    def an_earlier_call_runs_late(self, index: int) -> None:
        with suppress(EpochLostError, FencedError):
            self.stale[index % len(self.stale)]()

    @rule()
    def bridge_reads_news(self) -> None:
        try:
            for partition in PARTITIONS:
                for lane, incarnation, offset, parked in self.lab.store.acknowledged(self.epoch, partition):
                    if incarnation == self.incarnations[lane]:
                        self.acknowledge(lane, offset)
                        self.release_if(lane, parked)
        except EpochLostError:
            self.restart()

    def next_append(self, lane: str, most: int) -> Append:
        sent = self.sent[lane]
        start = self.acknowledged[lane] if sent is None else sent
        offsets = [offset for offset in self.records[lane] if offset > start][:most]
        values = [b"%d" % offset for offset in offsets]
        return Append(lane, LANES[lane], sent, offsets, values, self.incarnations[lane])

    def add(self, appends: list[Append]) -> None:
        call = partial(self.lab.store.add, self.epoch, self.tenures, appends)
        self.stale.append(call)
        try:
            answers = call()
        except EpochLostError:
            self.restart()
            return
        for append, answer in zip(appends, answers, strict=True):
            if answer.damaged:
                self.begin_anew(append.lane)
            elif answer.enqueued >= 0 and (append.offsets or append.previous is not None):
                self.incarnations[append.lane] = answer.incarnation
                self.sent[append.lane] = answer.enqueued
                self.acknowledge(append.lane, answer.acknowledged)
                self.release_if(append.lane, answer.parked)

    def release_if(self, lane: str, parked: str | None) -> None:
        """A person releases a parked lane at once."""
        if parked is not None:
            assert self.blamed[lane] >= LIMITS.max_failures, f"{lane} parked: {parked}"
            self.begin_anew(lane)

    def begin_anew(self, lane: str) -> None:
        """The lane gets an incarnation that no lane ever had; whoever holds the old one holds nothing."""
        self.drawn += 1
        base = self.acknowledged[lane]
        call = partial(self.lab.store.reset, self.epoch, self.fence, LANES[lane], lane, self.drawn, base)
        self.stale.append(call)
        answer = call()
        assert not answer.damaged
        for lanes in self.living.values():
            lanes.discard(lane)
        self.incarnations[lane], self.sent[lane] = self.drawn, base

    def acknowledge(self, lane: str, offset: int) -> None:
        if self.records[lane] and offset >= self.records[lane][0]:
            assert offset <= self.accepted[lane], f"{lane}: {offset} acknowledged, not accepted"
            self.acknowledged[lane] = max(self.acknowledged[lane], offset)

    # Workers and the sink

    @rule()
    def worker_claims(self) -> None:
        claim = self.lab.store.step(floor=self.highest).claim
        if claim is not None:
            self.arrived(claim)

    def arrived(self, claim: Claim) -> None:
        assert claim.token > self.highest
        assert sum(len(lane.entries) for lane in claim.lanes) <= LIMITS.events
        failures = [lane.failures for lane in claim.lanes]
        assert len(claim.lanes) <= max(1, LIMITS.group >> max(failures))
        assert all(failures) or not any(failures)
        lanes = {lane.name for lane in claim.lanes}
        if any(lane.snapshot for lane in claim.lanes):
            overview = self.lab.store.overview()
            assert all(lane.snapshot for lane in claim.lanes), "a turn of both kinds"
            pausing = sum(not lane.snapshot for lane in overview.failing)
            assert overview.ready - overview.snapshots <= pausing, (
                "rows of a snapshot before changes that wait"
            )
        for token, others in self.living.items():
            assert not lanes & others, f"{lanes & others} claimed under {token} and {claim.token}"
        self.living[claim.token] = lanes
        self.highest = claim.token
        self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(index=st.integers(0, 1000), count=st.integers(0, 4))
    def worker_writes(self, index: int, count: int) -> None:
        claim = self.claims[index % len(self.claims)]
        for lane in claim.lanes:
            self.write(claim.token, lane, count)

    def write(self, token: int, lane: ClaimedLane, count: int) -> None:
        """The sink takes the first `count` events, unless it has seen a higher token of this lane."""
        if token < self.tokens[lane.name]:
            return
        self.tokens[lane.name] = token
        for entry in lane.entries[:count]:
            self.accept(lane.name, entry.offset)
        taken = self.written[token].get(lane.name, 0)
        self.written[token][lane.name] = max(taken, min(count, len(lane.entries)))

    def accept(self, lane: str, offset: int) -> None:
        known = self.records[lane]
        following = [one for one in known if one > self.accepted[lane]]
        if offset > self.accepted[lane]:
            assert offset == following[0], f"{lane}: {offset} written before {following[0]}"
            self.accepted[lane] = offset

    @precondition(lambda self: self.claims)
    @rule(
        index=st.integers(0, 1000),
        kind=st.sampled_from(["done", "retry", "undecided", "park"]),
        forget=st.booleans(),
    )
    def worker_hands_in(self, index: int, kind: str, forget: bool) -> None:
        claim = self.claims[index % len(self.claims)]
        self.living.pop(claim.token, None)
        for lane in claim.lanes:
            own = kind == "retry" or len(claim.lanes) == 1
            self.blamed[lane.name] += LIMITS.max_failures if kind == "park" else own
        step = self.lab.store.step([self.finished(claim, kind)], floor=self.highest)
        if step.claim is not None:
            self.arrived(step.claim)
        if forget:
            self.claims.remove(claim)

    def finished(self, claim: Claim, kind: Any) -> Finished:
        written = self.written[claim.token]
        return Finished(
            claim,
            [Outcome(lane.merchant, written.get(lane.name, 0), kind, 0, "no") for lane in claim.lanes],
        )

    @precondition(lambda self: self.claims)
    @rule(index=st.integers(0, 1000))
    def worker_gives_back(self, index: int) -> None:
        token = self.claims[index % len(self.claims)].token
        self.living.pop(token, None)
        self.lab.store.release(token)

    @precondition(lambda self: self.claims)
    @rule(index=st.integers(0, 1000))
    def lease_ends(self, index: int) -> None:
        claim = self.claims[index % len(self.claims)]
        token = claim.token
        if len(claim.lanes) == 1:
            self.blamed[claim.lanes[0].name] += 1
        self.living.pop(token, None)
        self.lab.ends(token)

    # What Redis forgets

    @rule()
    def everything_is_lost(self) -> None:
        self.living.clear()
        self.lab.loses_everything()

    @rule(lane=lanes)
    def a_lane_is_as_it_was(self, lane: str) -> None:
        if self.lab.store.lengths([lane])[lane]:
            self.lab.rolls_back(lane)

    @rule(lane=lanes)
    def a_tail_is_lost(self, lane: str) -> None:
        if self.lab.store.lengths([lane])[lane]:
            self.lab.loses_tail(lane)

    def teardown(self) -> None:
        """The faults stop: bridge and one worker go on until everything has arrived."""
        for claim in self.claims:
            self.lab.ends(claim.token)
        self.living.clear()
        for _ in range(100 + 2 * self.offset):
            self.bridge_reads_news()
            self.add([self.next_append(lane, 3) for lane in LANES])
            self.a_good_turn()
            if all(self.rests(lane) for lane in LANES):
                return
        raise AssertionError(f"not everything arrived: {dict(self.accepted)} of {dict(self.records)}")

    def a_good_turn(self) -> None:
        step = self.lab.store.step(floor=self.highest)
        if step.claim is None:
            self.lab.hurries()
            return
        self.arrived(step.claim)
        for lane in step.claim.lanes:
            self.write(step.claim.token, lane, len(lane.entries))
        self.living.clear()
        self.lab.store.step([self.finished(step.claim, "done")], claim=False)

    def rests(self, lane: str) -> bool:
        last = self.records[lane][-1] if self.records[lane] else -1
        return self.accepted[lane] >= last and self.acknowledged[lane] >= last


def test_in_memory() -> None:
    # Mutants: a claim that never ends; list end not checked; chain not checked; an ADD readies a claimed lane;
    # lanes of snapshots among the others; a lane adopted that is younger than the tenure; a reset of a lane of its own
    # incarnation; a failure of one lane counted against the others of its turn; a parked lane woken.
    class InMemory(Histories):
        def __init__(self) -> None:
            self.lab = MemoryLab(LIMITS)
            super().__init__()

    run_state_machine_as_test(InMemory, settings=_settings(examples=250, steps=50))


@pytest.mark.integration
def test_in_redis(redis_url: str) -> None:
    class InRedis(Histories):
        def __init__(self) -> None:
            self.client = redis.Redis.from_url(redis_url)
            self.lab = RedisLab(self.client, f"t_{uuid.uuid4().hex[:12]}:p", LIMITS)
            super().__init__()

        def teardown(self) -> None:
            with _closing(self.client, self.lab):
                super().teardown()

    run_state_machine_as_test(InRedis, settings=_settings(examples=10, steps=30))


@contextmanager
def _closing(client: redis.Redis, lab: LaneLab) -> Iterator[None]:
    try:
        yield
    finally:
        lab.loses_everything()
        client.close()


def _settings(examples: int, steps: int) -> settings:
    scale = int(os.environ.get("LANES_HISTORIES", "1"))
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=examples * scale, stateful_step_count=steps, deadline=None, suppress_health_check=checks
    )
