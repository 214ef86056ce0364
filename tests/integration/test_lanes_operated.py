"""`pipeline lanes` beside a real bridge: after each verb exactly those events are delivered that should be, in order."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial

import pytest

from devstack.process import wait_until
from pipeline.cli.lanes_places import Ground
from pipeline.cli.lanes_top import Looks
from pipeline.consumer import Outcome
from pipeline.lanes.claim import Claim, Finished
from tests.integration.bridged import Bridged
from tests.integration.operating import Operator

pytestmark = pytest.mark.integration
WHY = ("--reason", "test")


@pytest.fixture
def operator(bridged: Bridged) -> Iterator[Operator]:
    """With a bridge that runs."""
    operator = Operator(bridged)
    with bridged.bridge():
        yield operator


class Deliveries:
    """What the sink got, in order."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._taken: list[tuple[str, int]] = []

    def of(self, merchant: str) -> list[int]:
        """Offsets of one merchant since the last ``forget``."""
        self._taken += self._operator.bridged.accept()
        return [offset for owner, offset in self._taken if owner == merchant]

    def until(self, merchant: str, offsets: list[int]) -> None:
        """Accept until exactly these have come; repeats and others fail."""
        assert wait_until(lambda: len(self.of(merchant)) >= len(offsets), 90), self._taken
        assert self.of(merchant) == offsets

    def forget(self) -> None:
        self._taken.clear()


def claim_of(operator: Operator, merchant: str) -> Claim:
    """A turn that has this merchant's lane alone, as a worker gets it."""
    found: list[Claim] = []

    def claimed() -> bool:
        claim = operator.bridged.store.step().claim
        found.extend([claim] if claim is not None else [])
        return claim is not None

    assert wait_until(claimed, 90)
    assert [lane.merchant for lane in found[0].lanes] == [merchant]
    return found[0]


def park(operator: Operator, merchant: str, accepted: int) -> None:
    """A worker accepts so many events of the merchant and gives up at the next."""
    claim = claim_of(operator, merchant)
    outcome = Outcome(merchant, accepted, "park", reason="cannot be mapped")
    operator.bridged.store.step([Finished(claim, [outcome])], claim=False)


def state_of(operator: Operator, lane: str) -> str | None:
    listed = operator.told("list", "audit")["lanes"]
    return next((one["state"] for one in listed if one["lane"] == lane), None)


def is_put_aside(operator: Operator, merchant: str) -> bool:
    """Parked, and its bridge has moved it out of the way."""
    listed = operator.told("list", "audit", "--state", "parked")["lanes"]
    return any(one["lane"] == merchant and one["since"] is not None for one in listed)


def eventually(condition: Callable[[], bool]) -> None:
    assert wait_until(condition, 90)


# Mutant: only the lane of changes is asked for.
def test_a_paused_merchant_gets_nothing_and_all_of_it_after_resume(operator: Operator) -> None:
    deliveries = Deliveries(operator)
    before = operator.publish(*["6", "15"] * 5)
    deliveries.until("6", before["6"])
    said = operator.lanes("pause", "audit", "6", *WHY).out
    assert "audit 6: pause done; it is paused" in said
    assert "audit s.6: pause done; it is paused" in said
    after = operator.publish(*["6", "15"] * 5)
    deliveries.until("15", before["15"] + after["15"])
    assert deliveries.of("6") == before["6"]
    assert state_of(operator, "6") == "paused"
    assert "is paused since" in operator.lanes("pause", "audit", "6", *WHY, expected=1).err
    operator.lanes("resume", "audit", "6", *WHY)
    deliveries.until("6", before["6"] + after["6"])
    eventually(
        lambda: deliveries.of("6") == before["6"] + after["6"] and state_of(operator, "6") in (None, "long")
    )
    assert [verb for verb, *_ in operator.actions()] == ["lanes.pause"] * 2 + ["lanes.resume"] * 2
    assert {(subject, reason) for _, subject, reason in operator.actions()} == {
        ("audit 6", "test"),
        ("audit s.6", "test"),
    }


# Mutant: the skip ends at the last event to be left out, not behind it.
def test_a_parked_merchant_is_shown_skipped_over_and_released(operator: Operator) -> None:
    deliveries = Deliveries(operator)
    offsets = operator.publish(*["6"] * 5)["6"]
    park(operator, "6", accepted=1)
    eventually(lambda: is_put_aside(operator, "6"))
    shown = operator.shown("6")["6"]
    assert shown["detached"]["reason"].startswith("cannot be mapped")
    assert (shown["first"], shown["event"]["offset"]) == (offsets[1], offsets[1])
    assert deliveries.of("6") == []
    said = operator.lanes("skip", "audit", "6", "--count", "2", "--yes", *WHY).out
    assert "audit 6: skip done; it is parked" in said
    assert operator.shown("6")["6"]["event"]["offset"] == offsets[3]
    operator.lanes("release", "audit", "6", *WHY)
    deliveries.until("6", offsets[3:])
    assert "is not stopped" in operator.lanes("skip", "audit", "6", "--yes", *WHY, expected=1).err
    assert deliveries.of("6") == offsets[3:]


def test_all_parked_lanes_are_released_at_once(operator: Operator) -> None:
    deliveries, offsets = Deliveries(operator), dict[str, list[int]]()
    for merchant in ("6", "15"):
        offsets |= operator.publish(*[merchant] * 3)
        park(operator, merchant, accepted=0)
        eventually(partial(is_put_aside, operator, merchant))
    said = operator.lanes("release", "audit", "--all-parked", *WHY).out
    assert "audit 6: release done" in said
    assert "audit 15: release done" in said
    for merchant in ("6", "15"):
        deliveries.until(merchant, offsets[merchant])
    assert operator.lanes("release", "audit", "--all-parked", *WHY).out == "no lane of audit is parked\n"


# Mutant: an offset and a time are looked up in another partition.
def test_a_rewound_merchant_gets_again_what_came_since_and_nobody_else_does(operator: Operator) -> None:
    deliveries = Deliveries(operator)
    first = operator.publish(*["6", "15"] * 6)
    for merchant in ("6", "15"):
        deliveries.until(merchant, first[merchant])
    deliveries.forget()
    operator.lanes("rewind", "audit", "6", "--to", str(first["6"][2]), "--yes", *WHY)
    deliveries.until("6", first["6"][2:])
    eventually(lambda: state_of(operator, "6") in (None, "long"))
    second = operator.publish(*["6", "15"] * 3)
    deliveries.until("6", first["6"][2:] + second["6"])
    deliveries.until("15", second["15"])
    deliveries.forget()
    stamp = operator.stamps["6", second["6"][1]]
    again = [offset for offset in second["6"] if operator.stamps["6", offset] >= stamp]
    moment = datetime.fromtimestamp(stamp / 1000, UTC).isoformat()
    operator.lanes("rewind", "audit", "6", "--to", moment, "--yes", *WHY)
    deliveries.until("6", again)
    assert deliveries.of("15") == []


def test_a_rewound_lane_that_is_paused_stays_so(operator: Operator) -> None:
    deliveries = Deliveries(operator)
    offsets = operator.publish(*["6"] * 4)["6"]
    deliveries.until("6", offsets)
    deliveries.forget()
    operator.lanes("pause", "audit", "6", *WHY)
    said = operator.lanes("rewind", "audit", "6", "--to", str(offsets[1]), "--yes", *WHY).out
    assert "it is paused" in said
    assert deliveries.of("6") == []
    operator.lanes("resume", "audit", "6", *WHY)
    deliveries.until("6", offsets[1:])


def test_a_lane_whose_worker_is_lost_comes_again_at_once_after_resync(operator: Operator) -> None:
    deliveries = Deliveries(operator)
    offsets = operator.publish(*["6"] * 3)["6"]
    claim = claim_of(operator, "6")
    operator.lanes("resync", "audit", "6", *WHY)
    deliveries.until("6", offsets)
    done = [Outcome("6", len(claim.lanes[0].entries), "done")]
    assert operator.bridged.store.step([Finished(claim, done)], claim=False).refused == 1


def test_the_whole_consumer_is_paused_and_resumed(operator: Operator) -> None:
    deliveries = Deliveries(operator)
    before = operator.publish(*["6", "15"] * 3)
    deliveries.until("6", before["6"])
    assert "would wait" in operator.lanes("pause", "audit", "--all", "--dry-run", *WHY).out
    operator.lanes("pause", "audit", "--all", *WHY)
    assert "is paused already" in operator.lanes("pause", "audit", "--all", *WHY, expected=1).err
    eventually(lambda: operator.bridged.metrics().get("held_by_a_person") == 1)
    after = operator.publish(*["6", "15"] * 3)
    assert operator.told("list", "audit")["pause"]["reason"] == "test"
    assert deliveries.of("6") == before["6"]
    operator.lanes("resume", "audit", "--all", *WHY)
    deliveries.until("6", before["6"] + after["6"])
    deliveries.until("15", before["15"] + after["15"])
    assert operator.actions() == [("lanes.pause", "audit", "test"), ("lanes.resume", "audit", "test")]


# Mutant: the lane is expected where the skip ends.
def test_two_that_skip_the_same_event_at_once_skip_it_once(bridged: Bridged) -> None:
    operator = Operator(bridged)
    deliveries = Deliveries(operator)
    offsets = operator.publish(*["6"] * 4)["6"]
    with bridged.bridge():
        park(operator, "6", accepted=0)
        eventually(lambda: is_put_aside(operator, "6"))
    for _ in range(2):
        operator.lanes("skip", "audit", "6", "--yes", "--no-wait", *WHY)
    with bridged.bridge():
        eventually(lambda: all(finished for *_, finished, _ in operator.requests()))
        assert [refusal is None for *_, refusal in operator.requests()] == [True, False]
        assert "moved on" in operator.requests()[1][-1]
        operator.lanes("release", "audit", "6", *WHY)
        deliveries.until("6", offsets[1:])


# Mutants: arrivals of all merchants counted as one's; the first look takes what was there before for arrivals.
def test_top_tells_who_is_busy_and_who_waits(operator: Operator) -> None:
    operator.publish(*["6"] * 5)
    eventually(lambda: operator.bridged.store.lengths(["6"])["6"] == 5)
    with ExitStack() as stack:
        looks = Looks(Ground(operator.bridged.settings, "audit", stack), 10)
        operator.publish(*["15"] * 3, "6")
        eventually(lambda: operator.bridged.store.lengths(["6", "15"]) == {"6": 6, "15": 3})
        found = looks.again()
    took = found.seconds
    assert [(one.lane, one.waiting, round((one.arrivals or 0) * took)) for one in found.lanes] == [
        ("6", 6, 1),
        ("15", 3, 3),
    ]
    assert (found.behind, round((found.published or 0) * took), found.accepted) == (9, 4, 0.0)
    listed = operator.told("top", "audit", "--interval", "0.1", "--most", "1")["lanes"]
    assert [(one["lane"], one["arrivals"]) for one in listed] == [("6", 0.0)]
