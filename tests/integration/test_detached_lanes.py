"""Detached lanes, with the bridge as a process on the real Kafka, Redis and control database."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from devstack.process import wait_until
from pipeline.bridge import progress
from pipeline.consumer import Outcome
from pipeline.control import detached, requests
from pipeline.control.requests import Asked
from pipeline.domain.routing import partition_of
from pipeline.lanes.claim import ClaimedLane, Finished
from pipeline.ports import Verb
from tests.integration.bridged import MERCHANTS, PARTITIONS, Bridged

pytestmark = pytest.mark.integration

BUDGET = 1024 * 1024
HEAVY = MERCHANTS[0]
HOME = partition_of(HEAVY, PARTITIONS)
NEIGHBOURS = [one for one in MERCHANTS[1:] if partition_of(one, PARTITIONS) == HOME]
Delivered = list[tuple[str, int]]


def send(bridged: Bridged, merchant: str, count: int, size: int = 10) -> None:
    for _ in range(count):
        bridged.send(HOME, merchant.encode(), b"x" * size)
    bridged.producer.flush(30)


def deliver(bridged: Bridged, accepts: Callable[[ClaimedLane], bool]) -> Delivered:
    """Take what is due out of the lanes; those that are not to accept fail and wait."""
    delivered: Delivered = []
    while (claim := bridged.store.step().claim) is not None:
        outcomes = []
        for lane in claim.lanes:
            good = accepts(lane)
            if good:
                delivered += [(lane.merchant, entry.offset) for entry in lane.entries]
            count, kind = (len(lane.entries), "done") if good else (0, "retry")
            outcomes.append(Outcome(lane.merchant, count, "done" if kind == "done" else "retry", 60_000))
        bridged.store.step([Finished(claim, outcomes)], claim=False)
    return delivered


def others(lane: ClaimedLane) -> bool:
    return lane.merchant != HEAVY


def committed(bridged: Bridged) -> int:
    return progress.lag(bridged.settings, "audit")[HOME][0] or 0


def rows(bridged: Bridged) -> dict[str, detached.DetachedLane]:
    return {row.lane: row for row in detached.rows(bridged.database, "audit")}


def require_all(delivered: Delivered, merchant: str, count: int) -> None:
    first = [offset for owner, offset in dict.fromkeys(delivered) if owner == merchant]
    assert len(first) == count
    assert all(one < other for one, other in pairwise(first))


def finish(bridged: Bridged) -> Delivered:
    """Accept everything until all is committed and no lane is detached."""
    delivered: Delivered = []
    ends = progress.end_offsets(bridged.settings, "audit")

    def over() -> bool:
        delivered.extend(bridged.accept())
        return not rows(bridged) and progress.accepted(bridged.settings, "audit", ends)

    assert wait_until(over, 60), rows(bridged)
    return delivered


def ask(bridged: Bridged, verb: Verb, offset: int | None = None, expected: int | None = None) -> int:
    topic = bridged.settings.datastream.topic
    asked = Asked("audit", topic, HOME, HEAVY, verb, "a person", "because", offset, expected)
    [request] = requests.ask(bridged.database, [asked])
    return request


def finished(bridged: Bridged, request: int) -> str | None:
    """Why it was refused, or None when it was carried out."""

    def over() -> bool:
        found = requests.outcome(bridged.database, request)
        assert found is not None
        return found.finished

    assert wait_until(over, 30)
    found = requests.outcome(bridged.database, request)
    assert found is not None
    return found.refusal


@pytest.fixture
def narrow(bridged: Bridged) -> Bridged:
    """Lanes hold a megabyte."""
    bridged.configure("[consumers.audit]\n", f"[consumers.audit]\nlane_bytes = {BUDGET}\n")
    return bridged


def test_a_merchant_over_its_budget_holds_neither_its_partition_nor_the_committed_offset(
    narrow: Bridged,
) -> None:
    # Mutants: over budget, the partition pauses as it used to; or the watermark counts detached lanes.
    send(narrow, HEAVY, 3000, 1000)
    send(narrow, NEIGHBOURS[0], 10)
    end = progress.end_offsets(narrow.settings, "audit")[HOME]
    delivered: Delivered = []
    with narrow.bridge():

        def neighbours_are_through() -> bool:
            delivered.extend(deliver(narrow, others))
            return committed(narrow) == end

        assert wait_until(neighbours_are_through, 60)
        assert rows(narrow)[HEAVY].first == 0
        assert 0 < narrow.store.lengths([HEAVY])[HEAVY] < 3000
        assert not progress.accepted(narrow.settings, "audit", {HOME: end})
        require_all(delivered, NEIGHBOURS[0], 10)
        narrow.redis.hdel(f"{narrow.store.namespace}:lane:{HEAVY}", "not_before")
        narrow.redis.zadd(f"{narrow.store.namespace}:retries", {HEAVY: 0})
        send(narrow, HEAVY, 5)

        def closed() -> bool:
            delivered.extend(narrow.accept())
            return not rows(narrow)

        assert wait_until(closed, 60)
        delivered += finish(narrow)
    require_all(delivered, HEAVY, 3005)


@pytest.mark.parametrize(
    "point",
    [
        "bridge.fenced",
        pytest.param("bridge.detaching", marks=pytest.mark.soak),
        "bridge.detached",
        pytest.param("bridge.reset", marks=pytest.mark.soak),
        "bridge.handed_over",
        pytest.param("bridge.closed", marks=pytest.mark.soak),
    ],
)
def test_a_bridge_killed_while_it_detaches_loses_nothing(narrow: Bridged, point: str) -> None:
    send(narrow, HEAVY, 2500, 1000)
    send(narrow, NEIGHBOURS[0], 10)
    delivered: Delivered = []

    def died() -> bool:
        delivered.extend(narrow.accept() if over_budget or point == "bridge.fenced" else [])
        return killed.poll() is not None

    over_budget = False
    with narrow.bridge(PIPELINE_FAILPOINTS=f"{point}:1") as killed:
        over_budget = point not in ("bridge.fenced", "bridge.detaching", "bridge.detached", "bridge.reset")
        if over_budget:
            assert wait_until(lambda: HEAVY in rows(narrow), 60)
        assert wait_until(died, 60)
        assert killed.returncode == -signal.SIGKILL
    send(narrow, HEAVY, 5)
    with narrow.bridge():
        delivered += finish(narrow)
    require_all(delivered, HEAVY, 2505)
    require_all(delivered, NEIGHBOURS[0], 10)
    assert not rows(narrow)


def test_a_paused_merchant_gets_nothing_until_it_is_resumed_and_then_everything_in_order(
    bridged: Bridged,
) -> None:
    # Mutant: a cursor that feeds whatever the state.
    send(bridged, HEAVY, 5)
    delivered: Delivered = []
    with bridged.bridge():
        assert wait_until(lambda: bridged.store.lengths([HEAVY])[HEAVY] == 5, 40)
        assert finished(bridged, ask(bridged, "pause")) is None
        assert wait_until(lambda: bridged.store.lengths([HEAVY])[HEAVY] == 0, 10)
        send(bridged, HEAVY, 5)
        send(bridged, NEIGHBOURS[0], 5)
        end = progress.end_offsets(bridged.settings, "audit")[HOME]

        def neighbours_are_through() -> bool:
            delivered.extend(bridged.accept())
            return committed(bridged) == end

        assert wait_until(neighbours_are_through, 40)
        assert {owner for owner, _ in delivered} == {NEIGHBOURS[0]}
        assert rows(bridged)[HEAVY].state == "paused"
        assert finished(bridged, ask(bridged, "resume")) is None
        delivered += finish(bridged)
    require_all(delivered, HEAVY, 10)
    assert delivered.count((HEAVY, 0)) == 1


def test_a_parked_merchant_stands_at_its_failing_event_until_it_skips_and_is_released(
    bridged: Bridged,
) -> None:
    # Mutants: parked lanes are fed again at once; a skip that passes over more than was looked at.
    send(bridged, HEAVY, 6)
    delivered: Delivered = []
    with bridged.bridge():
        assert wait_until(lambda: bridged.store.lengths([HEAVY])[HEAVY] == 6, 40)
        claim = bridged.store.step().claim
        assert claim is not None
        delivered += [(HEAVY, entry.offset) for entry in claim.lanes[0].entries[:2]]
        bridged.store.step(
            [Finished(claim, [Outcome(HEAVY, 2, "park", reason="no such account")])], claim=False
        )
        assert wait_until(lambda: HEAVY in rows(bridged), 20)
        row = rows(bridged)[HEAVY]
        assert (row.state, row.reason, row.first) == ("parked", "no such account", 2)
        assert finished(bridged, ask(bridged, "resume")) == "lane 1 is not paused but parked"
        assert finished(bridged, ask(bridged, "skip", 3, expected=2)) is None
        assert "has moved on to offset 3" in (finished(bridged, ask(bridged, "skip", 3, expected=2)) or "")
        assert bridged.accept() == []
        assert finished(bridged, ask(bridged, "release")) is None
        delivered += finish(bridged)
    assert delivered == [(HEAVY, offset) for offset in (0, 1, 3, 4, 5)]


def test_a_rewound_merchant_gets_everything_from_there_again_in_order(bridged: Bridged) -> None:
    # Mutant: a rewind that keeps what is accepted in the lane (no reset).
    send(bridged, HEAVY, 6)
    with bridged.bridge():
        assert [offset for _, offset in finish(bridged)] == list(range(6))
        assert finished(bridged, ask(bridged, "rewind", 2)) is None
        send(bridged, HEAVY, 2)
        again: Delivered = []

        def all_came() -> bool:
            again.extend(bridged.accept())
            return len(again) >= 6 and not rows(bridged)

        assert wait_until(all_came, 40)
    assert again == [(HEAVY, offset) for offset in range(2, 8)]


def test_a_whole_consumer_is_held_and_goes_on(bridged: Bridged) -> None:
    requests.pause_consumer(bridged.database, "audit", actor="a person", reason="maintenance")
    with bridged.bridge():
        assert wait_until(lambda: bridged.metrics().get("held_by_a_person") == 1, 40)
        send(bridged, HEAVY, 3)
        assert not wait_until(lambda: bridged.store.lengths([HEAVY])[HEAVY] > 0, 3)
        requests.resume_consumer(bridged.database, "audit", actor="a person", reason="done")
        assert [offset for _, offset in finish(bridged)] == [0, 1, 2]


def test_a_damaged_lane_is_read_again_by_itself(bridged: Bridged) -> None:
    # Mutant: damage ignored.
    bridged.produce(20)
    with bridged.bridge():
        assert wait_until(lambda: sum(bridged.store.lengths(MERCHANTS).values()) == 400, 40)
        bridged.redis.delete(f"{bridged.store.namespace}.m.{HEAVY}")
        bridged.produce(5)
        delivered = finish(bridged)
        assert bridged.metrics()["resyncs"] == 0
    for merchant in MERCHANTS:
        assert [offset for owner, offset in delivered if owner == merchant] == sorted(
            {offset for owner, offset in delivered if owner == merchant}
        )
        require_all(delivered, merchant, 25)


@pytest.mark.soak
def test_rows_of_snapshots_that_detached_lanes_have_left_throttle_relays_unless_a_person_holds_them(
    narrow: Bridged,
) -> None:
    # Mutants: `snapshot_lag` by committed offsets alone: what one merchant has too much of is published without bound; by
    # all detached lanes: one that is parked stops the snapshots of everybody.
    for _ in range(1500):
        narrow.send_row(HEAVY, b"x" * 1000)
    narrow.producer.flush(30)
    end = progress.end_offsets(narrow.settings, "audit")[PARTITIONS + HOME]
    with narrow.bridge():

        def passed_over() -> bool:
            return progress.lag(narrow.settings, "audit")[PARTITIONS + HOME][0] == end

        assert wait_until(passed_over, 60)
        assert wait_until(lambda: narrow.metrics().get("snapshot_lag") == end, 20)
        lane, topic = f"s.{HEAVY}", narrow.settings.snapshots.topic
        pause = Asked("audit", topic, HOME, lane, "pause", "a person", "because")
        requests.ask(narrow.database, [pause])
        assert wait_until(lambda: narrow.metrics().get("snapshot_lag") == 0, 20)
        requests.ask(narrow.database, [replace(pause, verb="resume")])
        assert wait_until(lambda: narrow.metrics().get("snapshot_lag") == end, 20)
        finish(narrow)
        assert wait_until(lambda: narrow.metrics().get("snapshot_lag") == 0, 20)
