"""What the bridge and the workers may rely on in a lane store, asked of the fake and of Redis alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import redis

from pipeline.consumer import Outcome
from pipeline.errors import EpochLostError, FencedError, StoreFullError
from pipeline.lanes.claim import Claim, Entry, Finished, TurnLimits
from pipeline.ports import Append, Appended, News, Tenure
from tests.fakes.lane_lab import LaneLab, Lost, MemoryLab, RedisLab, Store

P = 3
LONG = 25  # the most events that a short lane has
DRAWN = 10  # the highest incarnation when this bridge took its partitions over
Labs = Callable[..., LaneLab]


@pytest.fixture(params=["memory", "redis"])
def lab(request: pytest.FixtureRequest) -> Iterator[Labs]:
    """Makes one lab: `lab(**limits)`."""
    if request.param == "memory":
        yield lambda **limits: MemoryLab(TurnLimits(**limits))
        return
    client = redis.Redis.from_url(request.getfixturevalue("redis_url"))
    namespace = f"{request.getfixturevalue('redis_namespace')}c"
    yield lambda **limits: RedisLab(client, namespace, TurnLimits(**limits))
    client.close()


def entry(
    merchant: str, *offsets: int, previous: int | None = None, incarnation: int | None = None
) -> Append:
    values = [b'{"n":%d}' % offset for offset in offsets]
    return Append(merchant, P, previous, offsets, values, incarnation)


def add(store: Store, *appends: Append, fence: int = 1, drawn: int = DRAWN) -> list[Appended]:
    return list(store.add(store.epoch(), {P: Tenure(fence, drawn)}, appends))


def reset(store: Store, lane: str, base: int, incarnation: int = DRAWN + 1, fence: int = 1) -> Appended:
    return store.reset(store.epoch(), fence, P, lane, incarnation, base)


def claimed(store: Store, *finished: Finished) -> Claim:
    claim = store.step(finished).claim
    assert claim is not None
    return claim


def heads(claim: Claim | None) -> dict[str, list[int]]:
    return {lane.merchant: [e.offset for e in lane.entries] for lane in claim.lanes} if claim else {}


def done(claim: Claim, **counts: int) -> Finished:
    outcomes = [
        Outcome(lane.merchant, counts.get(lane.merchant, len(lane.entries)), "done") for lane in claim.lanes
    ]
    return Finished(claim, outcomes)


def retried(claim: Claim, entries: int = 0, delay: int = 0, reason: str = "no") -> Finished:
    return Finished(claim, [Outcome(lane.merchant, entries, "retry", delay, reason) for lane in claim.lanes])


def undecided(claim: Claim, entries: int = 0) -> Finished:
    return Finished(claim, [Outcome(lane.merchant, entries, "undecided", 0, "?") for lane in claim.lanes])


def parked(claim: Claim, entries: int = 0, reason: str = "bad") -> Finished:
    return Finished(claim, [Outcome(lane.merchant, entries, "park", 0, reason) for lane in claim.lanes])


def unavailable(claim: Claim) -> Finished:
    return Finished(claim, [Outcome(lane.merchant, 0, "unavailable") for lane in claim.lanes])


def news(store: Store) -> Mapping[str, int]:
    return {lane: offset for lane, _, offset, _ in store.acknowledged(store.epoch(), P)}


def fresh_claim(lab: LaneLab) -> Claim:
    """The next claim, as soon as there is one."""
    got: list[Claim] = []

    def look() -> bool:
        claim = lab.store.step().claim
        if claim is not None:
            got.append(claim)
        return bool(got)

    lab.until(look)
    return got[0]


# The bridge's side


def test_the_epoch_stays_until_everything_is_lost(lab: Labs) -> None:
    it = lab()
    first = it.store.epoch()
    assert it.store.epoch() == first
    it.loses_everything()
    with pytest.raises(EpochLostError):
        it.store.add(first, {P: Tenure(1, 0)}, [entry("a", 5)])
    assert it.store.epoch() != first


@pytest.mark.parametrize("call", ["add", "acknowledged", "reset"])
def test_another_epoch_is_refused(lab: Labs, call: str) -> None:
    store = lab().store
    store.epoch()
    calls: dict[str, Callable[[], object]] = {
        "add": lambda: store.add("other", {P: Tenure(1, 0)}, [entry("a", 1)]),
        "acknowledged": lambda: store.acknowledged("other", P),
        "reset": lambda: store.reset("other", 1, P, "a", 1, 4),
    }
    with pytest.raises(EpochLostError):
        calls[call]()
    assert store.step().claim is None


def test_a_lower_fence_is_refused_whole(lab: Labs) -> None:
    # Mutant: the fence of an ADD not compared.
    store = lab().store
    add(store, entry("a", 5), fence=2)
    with pytest.raises(FencedError):
        store.add(store.epoch(), {P + 1: Tenure(1, 0), P: Tenure(1, 0)}, [entry("b", 6)])
    with pytest.raises(FencedError):
        reset(store, "a", 5)
    assert store.lengths(["a", "b"]) == {"a": 1, "b": 0}
    add(store, entry("a", 7, previous=5), fence=2)


def test_a_new_lane_begins_before_its_first_event(lab: Labs) -> None:
    store = lab().store
    assert add(store, entry("a", 5, 9)) == [Appended("a", P, 9, 4, DRAWN)]
    assert heads(claimed(store)) == {"a": [5, 9]}


def test_an_unknown_lane_with_a_past_is_damaged(lab: Labs) -> None:
    store = lab().store
    assert add(store, entry("a", 9, previous=5))[0].damaged
    assert store.lengths(["a"]) == {"a": 0}


def test_an_empty_add_creates_nothing(lab: Labs) -> None:
    store = lab().store
    assert add(store, entry("a")) == [Appended("a", P, -1, -1, -1)]
    assert add(store, entry("a", previous=3))[0].damaged


def test_an_add_may_be_repeated(lab: Labs) -> None:
    store = lab().store
    add(store, entry("a", 5))
    for _ in range(2):
        assert add(store, entry("a", 7, 8, previous=5)) == [Appended("a", P, 8, 4, DRAWN)]
    assert heads(claimed(store)) == {"a": [5, 7, 8]}


def test_a_bridge_without_memory_appends_only_what_is_new(lab: Labs) -> None:
    store = lab().store
    add(store, entry("a", 5, 7))
    assert add(store, entry("a", 5, 7, 8, 9)) == [Appended("a", P, 9, 4, DRAWN)]
    assert add(store, entry("a", 5)) == [Appended("a", P, 9, 4, DRAWN)]
    assert heads(claimed(store)) == {"a": [5, 7, 8, 9]}


def test_a_gap_in_the_chain_is_damage_of_that_lane_only(lab: Labs) -> None:
    # Mutant: the previous offset not compared.
    store = lab().store
    add(store, entry("a", 5), entry("b", 6))
    a, b = add(store, entry("a", 9, previous=7), entry("b", 10, previous=6))
    assert (a.damaged, a.enqueued, b.damaged, b.enqueued) == (True, 5, False, 10)
    assert store.lengths(["a", "b"]) == {"a": 1, "b": 2}


def test_a_lost_tail_is_damage(lab: Labs) -> None:
    # Mutant: list end not checked.
    it = lab()
    add(it.store, entry("a", 5, 6))
    it.loses_tail("a")
    assert add(it.store, entry("a", 7, previous=6))[0].damaged
    assert add(it.store, entry("a", previous=6))[0].damaged


def test_a_lost_list_is_damage(lab: Labs) -> None:
    # Mutant: list end not checked.
    it = lab()
    add(it.store, entry("a", 5, 6))
    it.loses_list("a")
    assert add(it.store, entry("a", 7, previous=6))[0].damaged


@pytest.mark.parametrize("field", ["partition", "enqueued", "acknowledged", "incarnation"])
def test_a_lost_field_is_damage(lab: Labs, field: Lost) -> None:
    it = lab()
    add(it.store, entry("a", 5))
    it.loses_field("a", field)
    assert add(it.store, entry("a", 7, previous=5))[0].damaged
    assert add(it.store, entry("a", 7))[0].damaged


def test_a_new_lane_is_of_the_highest_incarnation_drawn(lab: Labs) -> None:
    store = lab().store
    assert add(store, entry("a", 5), drawn=7)[0].incarnation == 7
    assert add(store, entry("a", 6, previous=5, incarnation=7), drawn=9)[0].incarnation == 7


def test_a_lane_that_is_not_there_is_not_made_for_a_bridge_that_knew_it(lab: Labs) -> None:
    # Mutant: only the previous offset says that the lane had a past.
    store = lab().store
    assert add(store, entry("a", 5, incarnation=3))[0].damaged
    assert add(store, entry("a", incarnation=3))[0].damaged
    assert store.lengths(["a"]) == {"a": 0}


def test_another_incarnation_than_the_named_one_is_damage(lab: Labs) -> None:
    # Mutant: the incarnation of an ADD not compared.
    store = lab().store
    add(store, entry("a", 5))
    for named in (DRAWN - 1, DRAWN + 1):
        assert add(store, entry("a", 6, previous=5, incarnation=named))[0].damaged
        assert add(store, entry("a", previous=5, incarnation=named))[0].damaged
    assert store.lengths(["a"]) == {"a": 1}
    assert not add(store, entry("a", 6, previous=5, incarnation=DRAWN))[0].damaged


def test_a_lane_that_is_younger_than_the_tenure_is_not_adopted(lab: Labs) -> None:
    # Mutant: an ADD without an incarnation adopts any lane.
    store = lab().store
    reset(store, "a", 4, incarnation=DRAWN + 1)
    damaged = add(store, entry("a", 5))[0]
    assert (damaged.damaged, damaged.incarnation) == (True, DRAWN + 1)
    assert store.lengths(["a"]) == {"a": 0}
    assert add(store, entry("a", 5), drawn=DRAWN + 1) == [Appended("a", P, 5, 4, DRAWN + 1)]


def test_a_lane_is_of_one_partition(lab: Labs) -> None:
    store = lab().store
    add(store, entry("a", 5))
    elsewhere = Append("a", P + 1, None, [6], [b"{}"])
    assert store.add(store.epoch(), {P + 1: Tenure(1, DRAWN)}, [elsewhere])[0].damaged
    assert store.reset(store.epoch(), 1, P + 1, "a", DRAWN, 5).damaged


def test_a_reset_lane_goes_on_from_its_base(lab: Labs) -> None:
    # Mutant: a reset leaves the claim, or what waits, of the incarnation before.
    it = lab()
    add(it.store, entry("a", 5, 6))
    old = claimed(it.store)
    assert reset(it.store, "a", 4) == Appended("a", P, 4, 4, DRAWN + 1)
    again = entry("a", 5, 6, previous=4, incarnation=DRAWN + 1)
    assert add(it.store, again) == [Appended("a", P, 6, 4, DRAWN + 1)]
    new = claimed(it.store, done(old))
    assert heads(new) == {"a": [5, 6]}
    assert new.token > old.token
    assert news(it.store) == {}


def test_a_reset_lane_that_was_waiting_waits_no_more(lab: Labs) -> None:
    store = lab().store
    add(store, entry("a", 5), entry("b", 6))
    store.step([retried(claimed(store))], claim=False)
    for lane in "ab":
        reset(store, lane, 6)
    assert (store.overview().ready, store.overview().failing_count) == (0, 0)
    assert store.step().claim is None


def test_a_reset_makes_a_lane_that_is_not_there(lab: Labs) -> None:
    store = lab().store
    assert reset(store, "a", -1) == Appended("a", P, -1, -1, DRAWN + 1)
    assert not add(store, entry("a", 0, previous=-1, incarnation=DRAWN + 1))[0].damaged


def test_a_reset_that_is_repeated_changes_nothing(lab: Labs) -> None:
    # Mutant: a reset acts on a lane of its own incarnation (a late one takes back what was appended since).
    store = lab().store
    reset(store, "a", 4)
    add(store, entry("a", 5, 6, previous=4, incarnation=DRAWN + 1))
    store.step([done(claimed(store), a=1)], claim=False)
    assert reset(store, "a", 4) == Appended("a", P, 6, 5, DRAWN + 1)
    assert heads(claimed(store)) == {"a": [6]}


def test_a_lane_above_a_resets_incarnation_is_damage(lab: Labs) -> None:
    # Mutant: a reset acts on any lane.
    store = lab().store
    reset(store, "a", 4, incarnation=DRAWN + 2)
    add(store, entry("a", 5, previous=4, incarnation=DRAWN + 2))
    answer = reset(store, "a", 9, incarnation=DRAWN + 1)
    assert (answer.damaged, answer.incarnation, answer.enqueued) == (True, DRAWN + 2, 5)
    assert store.lengths(["a"]) == {"a": 1}


def test_a_lane_of_a_resets_incarnation_must_end_where_it_says(lab: Labs) -> None:
    # Mutant: a reset does not check the end of the list.
    it = lab()
    reset(it.store, "a", 4)
    add(it.store, entry("a", 5, 6, previous=4, incarnation=DRAWN + 1))
    it.loses_tail("a")
    assert reset(it.store, "a", 4).damaged
    assert not reset(it.store, "a", 4, incarnation=DRAWN + 2).damaged


@pytest.mark.parametrize("field", ["partition", "enqueued", "acknowledged"])
def test_a_reset_does_not_take_a_lane_with_a_lost_field(lab: Labs, field: Lost) -> None:
    it = lab()
    reset(it.store, "a", 4)
    it.loses_field("a", field)
    assert reset(it.store, "a", 4).damaged


def test_a_lane_that_lost_its_incarnation_is_reset_by_any(lab: Labs) -> None:
    it = lab()
    add(it.store, entry("a", 5))
    it.loses_field("a", "incarnation")
    assert reset(it.store, "a", 4, incarnation=1) == Appended("a", P, 4, 4, 1)


def test_a_reset_raises_the_fence(lab: Labs) -> None:
    store = lab().store
    reset(store, "a", 4, fence=3)
    with pytest.raises(FencedError):
        add(store, entry("b", 5), fence=2)


# Mutant: news without the incarnation (an old acknowledgement counts for a lane that began anew).
def test_news_say_of_which_incarnation_they_are(lab: Labs) -> None:
    store = lab().store
    add(store, entry("a", 5, 6))
    store.step([done(claimed(store), a=1)], claim=False)
    reset(store, "a", 3, incarnation=DRAWN + 4)
    assert store.acknowledged(store.epoch(), P) == [News("a", DRAWN, 5)]


@pytest.mark.parametrize("field", ["acknowledged", "incarnation"])
def test_a_lane_with_a_lost_field_has_no_news(lab: Labs, field: Lost) -> None:
    it = lab()
    add(it.store, entry("a", 5))
    claim = claimed(it.store)
    it.loses_field("a", field)
    it.store.step([parked(claim)], claim=False)
    assert news(it.store) == {}


def test_an_accepted_lane_that_lost_its_incarnation_has_no_news_and_stops_nobody(lab: Labs) -> None:
    # Mutant: it is told all the same (the step fails, and with it every lane of the consumer).
    it = lab(group=2)
    add(it.store, entry("a", 5), entry("b", 6))
    claim = claimed(it.store)
    it.loses_field("a", "incarnation")
    it.store.step([done(claim)], claim=False)
    assert news(it.store) == {"b": 6}


@pytest.mark.parametrize("first", ["append", "reset"])
def test_a_newer_bridge_is_not_told_what_was_said_before(lab: Labs, first: str) -> None:
    # Mutant: news stay when a partition changes hands. A lane that is lost and made anew may have its number again.
    store = lab().store
    add(store, entry("a", 5))
    store.step([done(claimed(store))], claim=False)
    if first == "append":
        add(store, entry("b", 6), fence=2)
    else:
        reset(store, "b", 99, fence=2)
    assert store.acknowledged(store.epoch(), P) == []


def test_news_stay_while_the_bridge_stays(lab: Labs) -> None:
    # Mutant: each append takes the hold of its partition anew.
    store = lab().store
    add(store, entry("a", 5))
    store.step([done(claimed(store))], claim=False)
    add(store, entry("c", 7))
    reset(store, "d", 8)
    assert store.acknowledged(store.epoch(), P) == [News("a", DRAWN, 5)]


def test_acknowledgements_are_told_once_and_again_by_an_add(lab: Labs) -> None:
    store = lab().store
    add(store, entry("a", 5, 6, 7), entry("b", 8))
    store.step([done(claimed(store), a=2)], claim=False)
    assert news(store) == {"a": 6}
    assert news(store) == {}
    assert add(store, entry("a", previous=7)) == [Appended("a", P, 7, 6, DRAWN)]


def test_acknowledgements_come_in_portions(lab: Labs) -> None:
    store = lab(group=10).store
    add(store, *(entry(str(n), n) for n in range(10)))
    store.step([done(claimed(store))], claim=False)
    parts = [store.acknowledged(store.epoch(), P, 4) for _ in range(4)]
    assert sorted(map(len, parts)) == [0, 2, 4, 4]
    assert {one.lane: one.acknowledged for part in parts for one in part} == {str(n): n for n in range(10)}


def test_a_full_store_appends_nothing(request: pytest.FixtureRequest) -> None:
    # Redis itself is filled up in tests/integration/test_lanes_redis.py.
    store = MemoryLab().store
    epoch = store.epoch()
    store.full = True
    with pytest.raises(StoreFullError):
        store.add(epoch, {P: Tenure(1, 0)}, [entry("a", 1)])
    assert store.lengths(["a"]) == {"a": 0}


# Claims


def test_a_turn_takes_the_heads_of_up_to_group_lanes(lab: Labs) -> None:
    store = lab(group=2).store
    for n, merchant in enumerate("abc"):
        add(store, entry(merchant, n))
    first, second = claimed(store), claimed(store)
    assert (len(first.lanes), len(second.lanes)) == (2, 1)
    assert {**heads(first), **heads(second)} == {"a": [0], "b": [1], "c": [2]}
    assert second.token > first.token
    assert store.step().claim is None


def test_a_turn_has_no_more_events_than_allowed(lab: Labs) -> None:
    store = lab(group=3, events=3).store
    add(store, entry("a", 1, 2), entry("b", 3, 4), entry("c", 5))
    first = claimed(store)
    assert sum(map(len, heads(first).values())) == 3
    store.step([done(first)], claim=False)
    second = claimed(store)
    assert sum(map(len, heads(second).values())) == 2


def test_a_turn_has_no_more_bytes_than_allowed_but_one_event_always(lab: Labs) -> None:
    store = lab(group=2, bytes=250).store
    values = [b"x" * 100, b"y" * 100, b"z" * 100, b"w" * 999]
    store.add(store.epoch(), {P: Tenure(1, 0)}, [Append("a", P, None, [1, 2, 3, 4], values)])
    taken = []
    step = store.step()
    while step.claim is not None:
        taken.append(heads(step.claim)["a"])
        step = store.step([done(step.claim)])
    assert taken == [[1, 2], [3], [4]]


def test_entries_come_back_as_they_went_in(lab: Labs) -> None:
    store = lab().store
    value = b"\x00line\nline\xff"
    store.add(store.epoch(), {P: Tenure(1, 0)}, [Append("a", P, None, [7], [value])])
    (lane,) = claimed(store).lanes
    assert (lane.merchant, lane.partition, lane.failures, lane.entries) == ("a", P, 0, (Entry(7, value),))


def test_a_claimed_lane_is_nobody_elses(lab: Labs) -> None:
    # Mutant: an ADD to a claimed lane makes it ready.
    store = lab().store
    add(store, entry("a", 1))
    claim = claimed(store)
    add(store, entry("a", 2, previous=1))
    assert store.step().claim is None
    assert heads(store.step([done(claim)]).claim) == {"a": [2]}


def test_a_lane_of_unknown_partition_is_not_claimed_and_its_bridge_finds_out(lab: Labs) -> None:
    # Mutant: claimed all the same: what a worker set aside of it would lie under another partition's offset.
    it = lab()
    add(it.store, entry("a", 1), entry("b", 1))
    it.loses_field("a", "partition")
    assert heads(fresh_claim(it)) == {"b": [1]}
    assert it.store.step().claim is None
    assert add(it.store, entry("a", previous=1))[0].damaged


def test_done_events_leave_and_the_rest_stays_in_order(lab: Labs) -> None:
    store = lab().store
    add(store, entry("a", 1, 2, 3))
    second = claimed(store, done(claimed(store), a=2))
    assert heads(second) == {"a": [3]}
    assert second.lanes[0].failures == 0
    assert store.step([done(second)]).claim is None
    assert news(store) == {"a": 3}


def test_outcomes_of_another_token_are_refused(lab: Labs) -> None:
    # Mutant: no token check.
    it = lab()
    add(it.store, entry("a", 1, 2))
    zombie = claimed(it.store)
    it.ends(zombie.token)
    owner = claimed(it.store)
    assert it.store.step([done(zombie)]).refused == 1
    assert it.store.lengths(["a"]) == {"a": 2}
    assert it.store.step([done(owner)]).refused == 0
    assert it.store.lengths(["a"]) == {"a": 0}


def test_a_step_may_be_repeated(lab: Labs) -> None:
    store = lab().store
    add(store, entry("a", 1, 2))
    finished = done(claimed(store), a=1)
    store.step([finished], claim=False)
    assert store.step([finished], claim=False).refused == 1
    assert store.lengths(["a"]) == {"a": 1}
    assert add(store, entry("a", previous=2)) == [Appended("a", P, 2, 1, DRAWN)]


def test_tokens_grow_across_the_loss_of_redis(lab: Labs) -> None:
    it = lab()
    add(it.store, entry("a", 1))
    highest = claimed(it.store).token + 10**9
    it.loses_everything()
    add(it.store, entry("a", 1))
    step = it.store.step(floor=highest)
    assert step.claim is not None
    assert step.claim.token > highest


# Leases


def test_a_lane_comes_back_when_its_lease_ends(lab: Labs) -> None:
    # Mutant: no lease (a claim never ends).
    it = lab(lease=40)
    add(it.store, entry("a", 1))
    first = claimed(it.store)
    second = fresh_claim(it)
    assert heads(second) == {"a": [1]}
    assert second.token > first.token
    assert second.lanes[0].failures == 1


def test_a_renewed_lease_holds_and_an_ended_one_does_not_come_back(lab: Labs) -> None:
    it = lab()
    add(it.store, entry("a", 1))
    claim = claimed(it.store)
    assert it.store.renew([claim.token, claim.token + 5]) == {claim.token}
    it.ends(claim.token)
    second = claimed(it.store)
    assert it.store.renew([claim.token]) == frozenset()
    assert it.store.renew([second.token]) == {second.token}


def test_renewing_puts_the_end_off(lab: Labs) -> None:
    it = lab()
    add(it.store, entry("a", 1))
    claim = claimed(it.store)
    it.ends(claim.token)
    it.store.renew([claim.token])
    assert it.store.step().claim is None


def test_a_released_turn_is_ready_at_once_and_counts_nothing(lab: Labs) -> None:
    store = lab(group=2).store
    add(store, entry("a", 1), entry("b", 2))
    claim = claimed(store)
    store.release(claim.token)
    again = claimed(store)
    assert heads(again) == {"a": [1], "b": [2]}
    assert {lane.failures for lane in again.lanes} == {0}
    assert store.step([done(claim)]).refused == 2


def test_a_claim_without_a_lease_is_void_at_the_next_add(lab: Labs) -> None:
    # Mutant: void claims kept.
    it = lab()
    add(it.store, entry("a", 1))
    claim = claimed(it.store)
    it.loses_lease(claim.token)
    assert it.store.step().claim is None
    add(it.store, entry("a", previous=1))
    assert heads(claimed(it.store)) == {"a": [1]}


def test_lost_readiness_comes_back_with_the_next_add(lab: Labs) -> None:
    it = lab()
    add(it.store, entry("a", 1))
    it.loses_readiness("a")
    assert it.store.step().claim is None
    add(it.store, entry("a", previous=1))
    assert heads(claimed(it.store)) == {"a": [1]}


# Failures


def test_a_failing_lane_waits_and_an_add_does_not_hurry_it(lab: Labs) -> None:
    # Mutant: an ADD lowers not_before.
    store = lab().store
    add(store, entry("a", 1))
    store.step([retried(claimed(store), delay=60_000, reason="mapping")], claim=False)
    add(store, entry("a", 2, previous=1))
    assert store.step().claim is None
    overview = store.overview()
    (failing,) = overview.failing
    assert (failing.merchant, failing.partition, failing.failures) == ("a", P, 1)
    assert (failing.reason, failing.oldest) == ("mapping", 1)
    assert (overview.failing_count, overview.ready, overview.claimed) == (1, 1, 0)


def test_a_failing_lane_is_tried_again_after_its_delay(lab: Labs) -> None:
    it = lab()
    add(it.store, entry("a", 1, 2))
    it.store.step([retried(claimed(it.store), entries=1, delay=30)], claim=False)
    claim = fresh_claim(it)
    assert heads(claim) == {"a": [2]}
    assert claim.lanes[0].failures == 1
    it.store.step([done(claim)], claim=False)
    assert it.store.overview().failing_count == 0
    add(it.store, entry("a", 3, previous=2))
    assert claimed(it.store).lanes[0].failures == 0


def test_failing_lanes_and_healthy_ones_are_never_in_one_turn(lab: Labs) -> None:
    # Mutant: claim joins failing lanes.
    it = lab(group=10)
    add(it.store, entry("bad", 1))
    it.store.step([retried(claimed(it.store))], claim=False)
    add(it.store, *(entry(str(n), n) for n in range(2, 6)))
    it.passes(2)
    turns = [heads(claimed(it.store)), heads(claimed(it.store))]
    assert {"bad": [1]} in turns
    assert {"2": [2], "3": [3], "4": [4], "5": [5]} in turns


def test_a_lane_that_fails_shares_its_turn_with_half_as_many_each_time(lab: Labs) -> None:
    # Mutants: failing lanes are claimed alone; or in turns of any size.
    it = lab(group=8)
    add(it.store, *(entry(str(n), n) for n in range(8)))
    sizes, turns = [], list[Claim]()
    for _ in range(4):
        it.store.step([undecided(turn) for turn in turns], claim=False)
        it.passes(2)
        turns = []
        while (claim := it.store.step().claim) is not None:
            turns.append(claim)
        sizes.append([len(turn.lanes) for turn in turns])
    assert sizes == [[8], [4, 4], [2, 2, 2, 2], [1] * 8]


def test_the_lane_that_failed_most_decides_how_many_go_along(lab: Labs) -> None:
    # Mutants: each lane asks only whether there is room for itself; or the first decides.
    it = lab(group=8)
    add(it.store, entry("bad", 1))
    for _ in range(3):
        it.store.step([undecided(claimed(it.store))], claim=False)
        it.passes(2)
    bad = claimed(it.store)
    add(it.store, entry("a", 2), entry("c", 3), entry("d", 4))
    others = claimed(it.store)
    assert (set(heads(bad)), set(heads(others))) == ({"bad"}, {"a", "c", "d"})
    it.store.release(bad.token)
    it.store.step([undecided(others)], claim=False)
    it.hurries()
    turns = [set(heads(claimed(it.store))) for _ in range(3)]
    assert turns == [{"a"}, {"bad"}, {"c", "d"}]


def test_failing_lanes_and_healthy_ones_take_turns(lab: Labs) -> None:
    # Mutant: failing lanes always first (or last): one kind starves the other.
    store = lab(group=1).store
    add(store, *(entry(f"bad{n}", n) for n in range(5)))
    claims = [claimed(store) for _ in range(5)]
    store.step([retried(claim) for claim in claims], claim=False)
    add(store, *(entry(f"good{n}", 100 + n) for n in range(5)))
    taken = [next(iter(heads(claimed(store))))[:-1] for _ in range(10)]
    assert taken in (["bad", "good"] * 5, ["good", "bad"] * 5)


def test_a_lane_left_undecided_counts_as_failed(lab: Labs) -> None:
    store = lab(group=2).store
    add(store, entry("a", 1), entry("b", 2))
    claim = claimed(store)
    store.step([Finished(claim, [Outcome("a", 1, "done")])], claim=False)
    assert [lane.merchant for lane in store.overview().failing] == ["b"]
    assert heads(claimed(store)) == {"b": [2]}


# Parking


def test_a_parked_lane_is_out_of_its_turns_and_says_why(lab: Labs) -> None:
    # Mutants: a parked lane waits; its bridge is not told; an ADD wakes it.
    it = lab()
    add(it.store, entry("a", 1, 2, 3))
    it.store.step([parked(claimed(it.store), entries=1, reason="no such account")], claim=False)
    told = it.store.acknowledged(it.store.epoch(), P)
    assert told == [News("a", DRAWN, 1), News("a", DRAWN, 1, "no such account")]
    it.passes(2)
    appended = add(it.store, entry("a", 4, previous=3))
    assert appended == [Appended("a", P, 4, 1, DRAWN, parked="no such account")]
    assert it.store.overview().ready == 0
    assert it.store.step().claim is None
    assert it.store.lengths(["a"]) == {"a": 3}
    overview = it.store.overview()
    (failing,) = overview.failing
    assert (failing.merchant, failing.parked, failing.reason, failing.oldest) == (
        "a",
        True,
        "no such account",
        2,
    )
    assert overview.claimed == 0


def test_a_lane_that_is_parked_without_progress_is_news(lab: Labs) -> None:
    # Mutant: only acknowledging marks a lane.
    store = lab().store
    add(store, entry("a", 1))
    store.step([parked(claimed(store))], claim=False)
    assert store.acknowledged(store.epoch(), P) == [News("a", DRAWN, 0, "bad")]


def test_a_parked_lane_runs_again_when_it_is_reset(lab: Labs) -> None:
    store = lab().store
    add(store, entry("a", 1))
    store.step([parked(claimed(store))], claim=False)
    reset(store, "a", 0)
    assert store.overview().failing_count == 0
    assert add(store, entry("a", 1, previous=0, incarnation=DRAWN + 1))[0].parked is None
    assert claimed(store).lanes[0].failures == 0


def test_only_the_holder_of_the_token_parks(lab: Labs) -> None:
    it = lab()
    add(it.store, entry("a", 1))
    zombie = claimed(it.store)
    it.ends(zombie.token)
    owner = claimed(it.store)
    assert it.store.step([parked(zombie)], claim=False).refused == 1
    assert news(it.store) == {}
    it.store.step([done(owner)], claim=False)
    assert news(it.store) == {"a": 1}


FAILS: Callable[[Claim], Finished] = retried


def turn_with(it: LaneLab, lane: str) -> Claim:
    """The turn that has this lane; others that are claimed before it are given back."""
    others = []
    while lane not in heads(claim := fresh_claim(it)):
        others.append(claim)
    for other in others:
        it.store.release(other.token)
    return claim


def fails(it: LaneLab, lane: str = "bad", how: Callable[[Claim], Finished] = FAILS) -> None:
    """The lane's turn fails."""
    it.store.step([how(turn_with(it, lane))], claim=False)


def accepts(it: LaneLab, lane: str, offset: int) -> None:
    """The sink takes an event of another lane."""
    add(it.store, entry(lane, offset))
    it.store.step([done(turn_with(it, lane))], claim=False)


def is_parked(it: LaneLab, lane: str = "bad") -> bool:
    return any(one.merchant == lane and one.parked for one in it.store.overview().failing)


def failed(it: LaneLab, times: int, how: Callable[[Claim], Finished] = FAILS) -> None:
    """So many failures of lane "bad", another lane accepted after each but the last."""
    for n in range(times):
        if n:
            accepts(it, f"other{n}", 100 + n)
        fails(it, how=how)


@pytest.mark.parametrize("how", [retried, undecided, lambda claim: Finished(claim, [])])
def test_a_lane_that_fails_too_often_while_others_are_accepted_is_parked(
    lab: Labs, how: Callable[[Claim], Finished]
) -> None:
    # Mutants: failures not counted; one more or one less than the limit.
    it = lab(max_failures=3)
    add(it.store, entry("bad", 1, 2))
    failed(it, 2, how=how)
    assert not is_parked(it)
    accepts(it, "x", 200)
    fails(it, how=how)
    assert is_parked(it)
    (told,) = [one for one in it.store.acknowledged(it.store.epoch(), P) if one.lane == "bad"]
    assert told.parked
    (failing,) = it.store.overview().failing
    assert (failing.failures, failing.oldest, failing.reason) == (3, 1, told.parked)


def test_a_sink_that_accepts_nothing_parks_nobody(lab: Labs) -> None:
    # Mutant: failures count whether or not others are accepted.
    it = lab(max_failures=2)
    add(it.store, entry("bad", 1))
    for _ in range(6):
        fails(it)
    assert not is_parked(it)
    accepts(it, "x", 200)
    fails(it)
    assert is_parked(it)


def test_a_long_outage_is_one_failure(lab: Labs) -> None:
    # Mutant: all failures count once others are accepted again: the first refusal after an outage parks.
    it = lab(max_failures=4)
    add(it.store, entry("bad", 1))
    for n in range(3):
        for _ in range(4):
            fails(it)
        assert not is_parked(it)
        accepts(it, f"x{n}", 200 + n)
    fails(it)
    assert is_parked(it)


def test_the_first_failure_parks_nobody(lab: Labs) -> None:
    # Mutant: what was accepted before a lane's first failure speaks against the lane.
    it = lab(max_failures=1)
    accepts(it, "x", 200)
    add(it.store, entry("bad", 1))
    fails(it)
    assert not is_parked(it)
    accepts(it, "y", 201)
    fails(it)
    assert is_parked(it)


def test_an_accepted_event_begins_the_count_anew(lab: Labs) -> None:
    # Mutants: failures in a row are those of the lane, not of its head; its own acceptance counts as another's.
    it = lab(max_failures=2)
    add(it.store, entry("bad", 1, 2, 3))
    failed(it, 1)
    accepts(it, "x", 200)
    fails(it, how=lambda claim: retried(claim, entries=1))
    assert not is_parked(it)
    assert [one.failures for one in it.store.overview().failing] == [1]
    fails(it)
    assert not is_parked(it)
    accepts(it, "y", 201)
    fails(it)
    assert is_parked(it)


def test_zero_is_never(lab: Labs) -> None:
    it = lab(max_failures=0)
    add(it.store, entry("bad", 1))
    failed(it, 5)
    assert not is_parked(it)


def test_in_a_turn_of_several_only_what_the_handler_said_counts(lab: Labs) -> None:
    # Mutant: every failed turn counts against each of its lanes: one lane's bug parks its neighbours.
    it = lab(group=100, max_failures=2)
    add(it.store, entry("a", 1), entry("b", 2))
    for n in range(5):
        claim = turn_with(it, "a")
        assert set(heads(claim)) == {"a", "b"}
        outcomes = [Outcome("a", 0, "undecided"), Outcome("b", 0, "retry" if n > 2 else "undecided", 0, "no")]
        it.store.step([Finished(claim, outcomes)], claim=False)
        accepts(it, f"x{n}", 200 + n)
        it.passes(2)
    assert (is_parked(it, "a"), is_parked(it, "b")) == (False, True)


def test_a_turn_that_ends_without_an_answer_counts_against_a_lane_that_was_alone(lab: Labs) -> None:
    # Mutants: lanes whose process died are never parked; or all that were in its turn.
    it = lab(group=2, max_failures=2)
    add(it.store, entry("a", 1), entry("b", 2))

    def dies(lanes: set[str]) -> None:
        claim = turn_with(it, "a")
        assert set(heads(claim)) == lanes
        it.ends(claim.token)
        it.store.step(claim=False)

    dies({"a", "b"})
    accepts(it, "x", 200)
    dies({"a"})
    assert not is_parked(it, "a")
    accepts(it, "y", 201)
    dies({"a"})
    assert (is_parked(it, "a"), is_parked(it, "b")) == (True, False)


# The sink as a whole


def test_an_unavailable_sink_is_no_lanes_fault(lab: Labs) -> None:
    it = lab(group=2)
    add(it.store, entry("a", 1), entry("b", 2))
    step = it.store.step([unavailable(claimed(it.store))])
    assert step.claim is None
    assert step.wait > 1
    overview = it.store.overview()
    assert (overview.failing_count, overview.ready, overview.sink_failures) == (0, 2, 1)


def test_an_unavailable_sink_is_tried_by_one_turn_at_a_time(lab: Labs) -> None:
    # Mutant: no probe (every worker tries at once).
    it = lab(group=1)
    add(it.store, entry("a", 1), entry("b", 2), entry("c", 3))
    first, second = claimed(it.store), claimed(it.store)
    it.store.step([unavailable(first)], claim=False, jitter=0.02)
    it.store.step([unavailable(second)], claim=False, jitter=0.02)
    assert it.store.overview().sink_failures == 1
    probe = fresh_claim(it)
    it.passes(10)
    assert it.store.step().claim is None
    it.store.step([unavailable(probe)], claim=False, jitter=0.02)
    assert it.store.overview().sink_failures == 2
    probe = fresh_claim(it)
    assert it.store.step([done(probe)]).claim is not None
    assert it.store.overview().sink_failures == 0
    assert it.store.step().claim is not None


def test_a_lost_probe_is_followed_by_another(lab: Labs) -> None:
    it = lab(group=1)
    add(it.store, entry("a", 1), entry("b", 2))
    it.store.step([unavailable(claimed(it.store))], claim=False, jitter=0.02)
    probe = fresh_claim(it)
    it.ends(probe.token)
    assert fresh_claim(it).token > probe.token


# Long runs


def test_long_runs_and_short_ones_have_turns_of_their_own_where_few_lanes_wait(lab: Labs) -> None:
    # Short ones would wait until long ones are read. Mutants: they go together; the first of the other kind ends a turn.
    store = lab(group=5).store
    add(
        store,
        entry("a", 1),
        entry("b", *range(2, 3 + LONG)),
        entry("c", 50),
        entry("d", *range(60, 61 + LONG)),
    )
    claims = [set(heads(claimed(store))) for _ in range(2)]
    assert claims == [{"a", "c"}, {"b", "d"}]


def test_a_run_that_is_not_long_goes_along(lab: Labs) -> None:
    # Mutants: whatever is more than one event is long; so is one of as many as a short one may have.
    store = lab(group=4).store
    add(store, entry("a", 1), entry("b", *range(2, 2 + LONG)), entry("c", 50))
    assert set(heads(claimed(store))) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "limits", [{"group": 2}, {"group": 5, "linger": 60}], ids=["many wait", "for company"]
)
def test_long_runs_and_short_ones_share_a_turn_where(lab: Labs, limits: dict[str, int]) -> None:
    # A drain would have more turns. Mutants: they are kept apart however many wait; also where all wait for company.
    it = lab(**limits)
    add(it.store, entry("a", 1), entry("b", *range(50, 51 + LONG)))
    it.passes(70)
    assert set(heads(claimed(it.store))) == {"a", "b"}


def test_long_runs_and_short_ones_that_fail_share_a_turn(lab: Labs) -> None:
    # Mutant: whatever fails is kept apart too, and a worker's death has a turn of each lane follow.
    store = lab(group=8).store
    add(store, entry("a", 1), entry("b", *range(50, 51 + LONG)))
    store.step([undecided(claim) for claim in (claimed(store), claimed(store))], claim=False)
    assert set(heads(claimed(store))) == {"a", "b"}


# Linger


def test_a_lane_waits_for_company(lab: Labs) -> None:
    it = lab(linger=60, events=3)
    add(it.store, entry("a", 1))
    assert it.store.step().claim is None
    assert heads(fresh_claim(it)) == {"a": [1]}


def test_a_full_lane_does_not_linger(lab: Labs) -> None:
    store = lab(linger=60_000, events=3).store
    add(store, entry("a", 1, 2))
    assert store.step().claim is None
    add(store, entry("a", 3, previous=2))
    assert heads(claimed(store)) == {"a": [1, 2, 3]}


def test_events_that_came_during_a_turn_linger_from_when_they_came(lab: Labs) -> None:
    it = lab(linger=60, events=2)
    add(it.store, entry("a", 1, 2))
    claim = claimed(it.store)
    add(it.store, entry("a", 3, previous=2))
    it.passes(70)
    assert heads(it.store.step([done(claim)]).claim) == {"a": [3]}


def test_they_linger_in_full_whatever_lingered_during_earlier_turns(lab: Labs) -> None:
    # Mutant: a claim leaves what an earlier turn noted.
    it = lab(linger=2000, events=2)
    add(it.store, entry("a", 1, 2))
    claim = claimed(it.store)
    add(it.store, entry("a", 3, 4, previous=2))
    claim = claimed(it.store, done(claim))
    assert heads(claim) == {"a": [3, 4]}
    it.passes(2010)
    add(it.store, entry("a", 5, previous=4))
    assert it.store.step([done(claim)]).claim is None


def test_what_a_turn_had_no_room_for_does_not_linger_again(lab: Labs) -> None:
    store = lab(linger=60_000, events=2).store
    add(store, entry("a", 1, 2, 3))
    assert heads(store.step([done(claimed(store))]).claim) == {"a": [3]}


# Mutant: only lanes that are due themselves are claimed.
def test_lanes_that_linger_go_along_with_one_that_is_due(lab: Labs) -> None:
    it = lab(linger=60, events=5, group=5)
    add(it.store, entry("a", 1))
    it.passes(70)
    add(it.store, entry("b", 2))
    assert heads(claimed(it.store)) == {"a": [1], "b": [2]}


def test_company_takes_no_more_room_than_a_turn_has(lab: Labs) -> None:
    it = lab(linger=60, events=3, group=2)
    add(it.store, entry("a", 1), entry("b", 2))
    it.passes(70)
    add(it.store, entry("c", 3))
    assert heads(claimed(it.store)) == {"a": [1], "b": [2]}
    assert it.store.step().claim is None


# Lanes of snapshots


ROWS = 8 + P  # the partition of snapshot rows beside P, of eight


def rows(merchant: str, *offsets: int, previous: int | None = None, incarnation: int | None = None) -> Append:
    """Events of a merchant's lane of snapshot rows, with the offsets that his other lane may have too."""
    values = [b"row %d" % offset for offset in offsets]
    return Append(f"s.{merchant}", ROWS, previous, offsets, values, incarnation)


def add_both(store: Store, *appends: Append) -> list[Appended]:
    return list(store.add(store.epoch(), {P: Tenure(1, DRAWN), ROWS: Tenure(1, DRAWN)}, appends))


def names(claim: Claim | None) -> set[str]:
    return {lane.name for lane in claim.lanes} if claim else set()


def test_a_merchants_two_lanes_know_nothing_of_each_other(lab: Labs) -> None:
    store = lab(group=5).store
    replies = add_both(store, rows("a", 5, 6), entry("a", 5), rows("b", 7))
    assert replies == [
        Appended("s.a", ROWS, 6, 4, DRAWN),
        Appended("a", P, 5, 4, DRAWN),
        Appended("s.b", ROWS, 7, 6, DRAWN),
    ]
    assert store.lengths(["a", "s.a", "b", "s.b"]) == {"a": 1, "s.a": 2, "b": 0, "s.b": 1}
    changes = claimed(store)
    assert (names(changes), heads(changes)) == ({"a"}, {"a": [5]})
    snapshot = claimed(store, done(changes))
    (first, *_) = sorted(snapshot.lanes, key=lambda lane: lane.merchant)
    assert (first.merchant, first.partition, first.snapshot) == ("a", ROWS, True)
    assert first.entries == (Entry(5, b"row 5"), Entry(6, b"row 6"))
    store.step([done(snapshot, a=1)], claim=False)
    assert store.acknowledged(store.epoch(), P) == [News("a", DRAWN, 5)]
    told = sorted(store.acknowledged(store.epoch(), ROWS))
    assert told == [News("s.a", DRAWN, 5), News("s.b", DRAWN, 7)]


def test_changes_go_before_rows_of_snapshots_and_no_turn_has_both(lab: Labs) -> None:
    # Mutants: one ready set for both kinds; or lanes of both in one turn.
    it = lab(group=2)
    add_both(it.store, *(rows(merchant, n) for n, merchant in enumerate("abcd")))
    it.passes(5)
    add_both(it.store, *(entry(merchant, n) for n, merchant in enumerate("xyz")))
    turns = [claimed(it.store) for _ in range(4)]
    assert [{lane.snapshot for lane in turn.lanes} for turn in turns] == [{False}, {False}, {True}, {True}]
    assert it.store.step().claim is None


def test_a_failing_lane_that_is_due_goes_before_rows_of_snapshots(lab: Labs) -> None:
    # Mutant: only healthy live lanes are looked for before those of snapshots.
    it = lab(group=1)
    add_both(it.store, entry("a", 1), entry("b", 2))
    it.store.step([retried(claimed(it.store)), retried(claimed(it.store))], claim=False)
    add_both(it.store, rows("c", 3), rows("d", 4))
    it.passes(2)
    order = [names(claimed(it.store)) for _ in range(4)]
    assert order[0] | order[1] == {"a", "b"}
    assert order[2] | order[3] == {"s.c", "s.d"}


def test_changes_that_linger_let_rows_of_snapshots_go(lab: Labs) -> None:
    it = lab(linger=60_000, events=2, group=5)
    add_both(it.store, entry("a", 1), rows("b", 2, 3), rows("c", 4))
    assert names(claimed(it.store)) == {"s.b"}
    assert it.store.step().claim is None


def test_a_failing_lane_of_a_snapshot_waits_alone_and_is_named(lab: Labs) -> None:
    it = lab(group=5)
    add_both(it.store, rows("a", 1), rows("b", 2))
    claim = claimed(it.store)
    outcomes = [Outcome("a", 0, "retry", 0, "mapping"), Outcome("b", 1, "done")]
    it.store.step([Finished(claim, outcomes)], claim=False)
    overview = it.store.overview()
    (failing,) = overview.failing
    assert (failing.name, failing.merchant, failing.partition, failing.snapshot) == ("s.a", "a", ROWS, True)
    assert (failing.reason, failing.oldest, overview.failing_count) == ("mapping", 1, 1)
    assert (overview.ready, overview.snapshots, overview.longest) == (1, 1, (("s.a", 1),))
    add_both(it.store, rows("b", 3, previous=2))
    it.passes(2)
    turns = [names(claimed(it.store)), names(claimed(it.store))]
    assert sorted(turns, key=sorted) == [{"s.a"}, {"s.b"}]


def test_damage_reset_and_the_end_of_leases_are_those_of_any_lane(lab: Labs) -> None:
    it = lab()
    add_both(it.store, rows("a", 5, 6))
    it.loses_tail("s.a")
    assert add_both(it.store, rows("a", previous=6))[0].damaged
    it.store.reset(it.store.epoch(), 1, ROWS, "s.a", DRAWN + 1, 4)
    assert it.store.overview().snapshots == 0
    readded = rows("a", 5, 6, previous=4, incarnation=DRAWN + 1)
    assert add_both(it.store, readded) == [Appended("s.a", ROWS, 6, 4, DRAWN + 1)]
    first = claimed(it.store)
    it.ends(first.token)
    second = claimed(it.store)
    assert (names(second), second.lanes[0].failures) == ({"s.a"}, 1)
    assert it.store.step([done(first)]).refused == 1
    it.store.release(second.token)
    assert names(claimed(it.store)) == {"s.a"}


def test_lost_readiness_of_rows_comes_back_with_the_next_add(lab: Labs) -> None:
    it = lab()
    add_both(it.store, rows("a", 1))
    it.loses_readiness("s.a")
    assert it.store.step().claim is None
    add_both(it.store, rows("a", previous=1))
    assert names(claimed(it.store)) == {"s.a"}


def test_an_idle_worker_waits_no_longer_than_until_rows_are_due(lab: Labs) -> None:
    # Mutant: the wait computed from live lanes alone.
    store = lab(linger=100).store
    add_both(store, rows("a", 1))
    assert 1 <= store.step().wait <= 100


def test_a_claim_of_all_that_is_due_says_when_to_come_again(lab: Labs) -> None:
    # Mutants: a claim never says so, and a worker asks again for nothing; it always does, and what is due waits for a bell.
    store = lab(group=1).store
    add(store, entry("a", 1), entry("b", 2))
    assert store.step().wait == 0
    last = store.step()
    assert last.claim is not None
    assert last.wait >= 1


# What people ask


def test_the_longest_lanes_are_listed(lab: Labs) -> None:
    store = lab(group=1, events=1).store
    add(store, entry("a", 1), entry("b", 2, 3, 4), entry("c", 5, 6))
    claimed(store)
    overview = store.overview(most=2)
    assert overview.longest == (("b", 3), ("c", 2))
    assert (overview.ready, overview.claimed) == (2, 1)
    assert store.lengths(["a", "none"]) == {"a": 1, "none": 0}
