"""How a lane is shown: as the scripts left it in Redis, and without touching it."""

from collections.abc import Iterator

import pytest

from pipeline.consumer import Outcome
from pipeline.lanes.claim import Claim, Finished, TurnLimits
from pipeline.lanes.store import RedisLaneStore, connect
from pipeline.lanes.view import LaneViews
from pipeline.ports import Append, Tenure

pytestmark = pytest.mark.integration
PARTITION, DRAWN = 3, 7
Shown = tuple[RedisLaneStore, LaneViews]


@pytest.fixture
def shown(redis_url: str, redis_namespace: str) -> Iterator[Shown]:
    client = connect(redis_url)
    namespace = f"{redis_namespace}c"
    yield RedisLaneStore(client, namespace, TurnLimits(group=1, lease=30_000)), LaneViews(client, namespace)
    client.close()


def add(store: RedisLaneStore, lane: str, *offsets: int) -> None:
    appends = [Append(lane, PARTITION, None, offsets, [b"{}"] * len(offsets))]
    store.add(store.epoch(), {PARTITION: Tenure(1, DRAWN)}, appends)


def claimed(store: RedisLaneStore) -> Claim:
    claim = store.step().claim
    assert claim is not None
    return claim


def finish(store: RedisLaneStore, claim: Claim, outcome: Outcome) -> None:
    store.step([Finished(claim, [outcome])], claim=False)


def test_a_lane_is_shown_from_its_first_event_to_its_last(shown: Shown) -> None:
    # Mutants: a claim without a lease shown as held; the wait of another room; failures of what was accepted since.
    store, views = shown
    assert not views.describe("6").known
    add(store, "6", 10, 12, 15)
    view = views.describe("6")
    assert (view.length, view.partition, view.incarnation) == (3, PARTITION, DRAWN)
    assert (view.enqueued, view.acknowledged, view.failures, view.claim) == (15, 9, 0, None)
    assert view.waits == 0
    head = views.head("6")
    assert head is not None
    assert head.offset == 10
    claim = claimed(store)
    view = views.describe("6")
    assert view.claim is not None
    assert (view.claim.token, view.waits) == (claim.token, None)
    assert view.claim.remaining is not None
    assert 0 < view.claim.remaining <= 30
    assert 0 <= view.claim.age < 30
    finish(store, claim, Outcome("6", 1, "retry", 50_000, "500"))
    view = views.describe("6")
    assert (view.length, view.acknowledged, view.failures, view.reason, view.claim) == (2, 10, 1, "500", None)
    assert view.not_before is not None
    assert view.waits is not None
    assert 40 < view.not_before <= 50
    assert 40 < view.waits <= 50
    assert views.failing() == ["6"]


def test_a_claim_whose_lease_is_gone_holds_nothing(shown: Shown) -> None:
    store, views = shown
    add(store, "s.6", 10)
    claim = claimed(store)
    store._client.zrem(f"{store.namespace}:leases", claim.token)
    view = views.describe("s.6")
    assert view.claim is not None
    assert view.claim.remaining is None


def test_a_lane_that_was_parked_this_moment_says_why(shown: Shown) -> None:
    store, views = shown
    add(store, "6", 10)
    finish(store, claimed(store), Outcome("6", 0, "park", reason="cannot be mapped"))
    view = views.describe("6")
    assert (view.parked, view.waits, view.length) == ("cannot be mapped", None, 1)


def test_names_are_found_by_what_they_begin_with_and_nothing_else(shown: Shown) -> None:
    # Mutant: the letters of a pattern are taken for a pattern.
    store, views = shown
    for lane in ("6", "61", "7", "s.6"):
        add(store, lane, 10)
    assert views.names() == {"6", "61", "7", "s.6"}
    assert views.names("6") == {"6", "61"}
    assert views.names("[67]") == set()
    assert [view.length for view in views.described(["61", "nobody", "7"])] == [1, 0, 1]
