"""A turn: every lane leaves with an outcome, whatever the handler does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import msgspec
import pytest
from celery.exceptions import Reject

from pipeline.consumer import Outcome, Rejection, SinkUnavailableError, Turn
from pipeline.errors import PermanentError, TransientError
from pipeline.lanes.claim import Claim, ClaimedLane, Entry, decode_entry, encode_entry
from pipeline.lanes.turn import UNDECIDED, Backoff, Consumption, Finish, reason_of, run_turn, undecided
from tests.fakes.turns import event, row

GOOD = "good"
BACKOFF = Backoff(lambda: 0.0, first=1.0, most=8.0)
PARTITIONS = 8


def entries(merchant: str, *kinds: str, first: int = 10) -> tuple[Entry, ...]:
    """A lane's entries: "good" events, or the text as it came."""
    return tuple(
        Entry(
            first + n,
            msgspec.json.encode(event(n + 1, row(n), merchant=merchant)) if kind == GOOD else kind.encode(),
        )
        for n, kind in enumerate(kinds)
    )


def claim(failures: int = 0, **lanes: Sequence[str]) -> Claim:
    return Claim(
        77,
        tuple(
            ClaimedLane(merchant, 3, failures, entries(merchant, *kinds)) for merchant, kinds in lanes.items()
        ),
    )


def run(
    handler: Callable[[Turn], object],
    got: Claim,
    *,
    single: bool = False,
    aside: list[Rejection] | None = None,
) -> Finish:
    stored = aside if aside is not None else []
    consumption = Consumption(
        "c", cast("Callable[[Turn], None]", handler), stored.extend, BACKOFF, PARTITIONS, single
    )
    return run_turn(consumption, got)


def outcome(finish: Finish, merchant: str) -> Outcome:
    return next(one for one in finish.outcomes if one.merchant == merchant)


def test_done_lanes_leave_whole() -> None:
    def handler(turn: Turn) -> None:
        assert (turn.consumer, turn.token, turn.size) == ("c", 77, 3)
        for lane in turn:
            assert [one.merchant for one in lane.events] == [lane.merchant] * len(lane.events)
            lane.done()

    finish = run(handler, claim(a=[GOOD, GOOD], b=[GOOD]))
    assert finish.outcomes == (Outcome("a", 2, "done"), Outcome("b", 1, "done"))
    assert str(finish) == "2 done"


def test_a_part_may_be_done() -> None:
    finish = run(lambda turn: turn.lanes[0].done(1), claim(a=[GOOD, GOOD]))
    assert finish.outcomes == (Outcome("a", 1, "done"),)


def test_a_retried_lane_waits_longer_each_time() -> None:
    def handler(turn: Turn) -> None:
        turn.lanes[0].retry("full")

    delays = [run(handler, claim(failures=n, a=[GOOD])).outcomes[0].delay_ms for n in range(5)]
    assert delays == [500, 1000, 2000, 4000, 4000]


def test_a_lane_may_say_when_and_keep_what_is_done() -> None:
    def handler(turn: Turn) -> None:
        turn.lanes[0].done(1)
        turn.lanes[0].retry("full", after=2.5)

    assert run(handler, claim(a=[GOOD, GOOD])).outcomes == (Outcome("a", 1, "retry", 2500, "full"),)


def test_a_lane_that_got_on_waits_as_after_its_first_failure() -> None:
    # Mutant: the wait grows by the failures of events that are accepted by now.
    def handler(turn: Turn) -> None:
        turn.lanes[0].done(1)
        turn.lanes[0].retry("full")

    assert run(handler, claim(failures=4, a=[GOOD, GOOD])).outcomes[0].delay_ms == 500


def test_a_lane_is_parked_behind_what_is_done() -> None:
    # Mutant: what else was said of the lane goes before.
    def handler(turn: Turn) -> None:
        a, b, c = turn.lanes
        a.done(1)
        a.retry("full")
        a.park("no such account")
        b.park("closed")
        c.done()
        raise SinkUnavailableError("down")

    finish = run(handler, claim(a=[GOOD, GOOD], b=["{", GOOD], c=[GOOD]))
    assert finish.outcomes == (
        Outcome("a", 1, "park", reason="no such account"),
        Outcome("b", 1, "park", reason="closed"),
        Outcome("c", 1, "done"),
    )


@pytest.mark.parametrize("kinds", [(GOOD,), (GOOD, GOOD)])
def test_returning_means_done_for_single_lanes_only(kinds: Sequence[str]) -> None:
    # Mutant: any turn of one lane counts as done: a group's undecided lane, tried again alone, would be lost.
    assert run(lambda turn: None, claim(a=kinds), single=True).outcomes == (Outcome("a", len(kinds), "done"),)
    assert run(lambda turn: None, claim(a=kinds)).outcomes == (Outcome("a", 0, "undecided", 500, UNDECIDED),)


def test_nothing_done_is_undecided() -> None:
    assert (
        run(lambda turn: turn.lanes[0].done(0), claim(a=[GOOD]), single=True).outcomes[0].kind == "undecided"
    )


def test_an_unavailable_sink_blames_no_lane_and_keeps_what_was_done() -> None:
    def handler(turn: Turn) -> None:
        turn.lanes[0].done()
        turn.lanes[1].done(1)
        raise SinkUnavailableError("down")

    finish = run(handler, claim(a=[GOOD], b=[GOOD, GOOD], c=[GOOD]))
    assert [(one.kind, one.entries) for one in finish.outcomes] == [
        ("done", 1),
        ("unavailable", 1),
        ("unavailable", 0),
    ]


def test_an_exception_counts_against_the_undecided() -> None:
    def handler(turn: Turn) -> None:
        turn.lanes[0].done()
        turn.lanes[1].done(1)
        raise ValueError("value 4111111111111111")

    finish = run(handler, claim(a=[GOOD], b=[GOOD, GOOD], c=[GOOD]))
    assert [(one.kind, one.entries) for one in finish.outcomes] == [
        ("done", 1),
        ("undecided", 1),
        ("undecided", 0),
    ]
    assert outcome(finish, "c").reason == "ValueError in a turn of several lanes"
    alone = run(handler, claim(a=[GOOD]))
    assert alone.outcomes == (Outcome("a", 1, "done"),)


def test_reasons_hold_no_values() -> None:
    assert reason_of(ValueError("4111111111111111")) == "ValueError"
    assert reason_of(PermanentError("no column", hint="add it")) == "no column"
    assert reason_of(Reject(PermanentError("refused"), requeue=False)) == "refused"


def test_malformed_records_are_set_aside_and_the_rest_goes_on() -> None:
    aside: list[Rejection] = []
    seen: list[list[int]] = []

    def handler(turn: Turn) -> None:
        seen.extend(list(lane.offsets) for lane in turn)
        for lane in turn:
            lane.done()

    finish = run(handler, claim(a=["{", GOOD, "", GOOD]), aside=aside)
    assert seen == [[11, 13]]
    assert finish.outcomes == (Outcome("a", 4, "done"),)
    assert finish.rejected == 2
    assert [(one.merchant, one.partition, one.offset, one.payload) for one in aside] == [
        ("a", 3, 10, b"{"),
        ("a", 3, 12, b""),
    ]


def test_an_event_of_another_merchant_is_malformed() -> None:
    aside: list[Rejection] = []
    stranger = Claim(1, (ClaimedLane("b", 0, 0, entries("a", GOOD)),))
    finish = run(lambda turn: pytest.fail("no event to handle"), stranger, aside=aside)
    assert finish.outcomes == (Outcome("b", 1, "done"),)
    assert "under the key of" in aside[0].reason


@pytest.mark.parametrize(
    ("kinds", "finished", "leave"),
    [
        ((GOOD, "{", GOOD), 1, 2),
        (("{", GOOD, GOOD), 1, 2),
        ((GOOD, GOOD, "{"), 2, 3),
    ],
)
def test_malformed_records_before_the_next_event_leave_with_it(
    kinds: Sequence[str], finished: int, leave: int
) -> None:
    assert run(lambda turn: turn.lanes[0].done(finished), claim(a=kinds)).outcomes[0].entries == leave


def test_a_failing_lane_loses_its_malformed_head() -> None:
    finish = run(lambda turn: turn.lanes[0].retry("no"), claim(a=["{", GOOD]))
    assert finish.outcomes == (Outcome("a", 1, "retry", 500, "no"),)


def test_rejected_events_count_as_done_in_their_place() -> None:
    aside: list[Rejection] = []

    def handler(turn: Turn) -> None:
        (lane,) = turn.lanes
        lane.reject(0, "too long")
        lane.reject(2, "too long")
        lane.retry("later")

    finish = run(handler, claim(a=[GOOD, GOOD, GOOD]), aside=aside)
    assert finish.outcomes == (Outcome("a", 1, "retry", 500, "later"),)
    assert [(one.offset, one.reason, one.event is not None) for one in aside] == [
        (10, "too long", True),
        (12, "too long", True),
    ]


def test_a_lane_of_rejected_events_is_done() -> None:
    assert run(lambda turn: turn.lanes[0].reject(0, "no"), claim(a=[GOOD])).outcomes[0].kind == "done"


def test_nothing_is_acknowledged_before_it_is_set_aside() -> None:
    # Mutant: outcomes before the control database has the rejected events.
    def refuse(rejections: Sequence[Rejection]) -> None:
        raise TransientError("control database: away")

    consumption = Consumption("c", lambda turn: turn.lanes[0].done(), refuse, BACKOFF, PARTITIONS)
    finish = run_turn(consumption, claim(a=["{", GOOD]))
    assert finish.outcomes == (Outcome("a", 0, "unavailable", reason="control database: away"),)


def test_a_broken_turn_is_tried_again_whole() -> None:
    finish = undecided(claim(failures=1, a=[GOOD, GOOD], b=[GOOD]), "WorkerLostError", BACKOFF)
    assert finish.outcomes == (
        Outcome("a", 0, "undecided", 1000, "WorkerLostError"),
        Outcome("b", 0, "undecided", 1000, "WorkerLostError"),
    )


def test_back_off_is_spread() -> None:
    assert Backoff(lambda: 0.5, first=1.0).milliseconds(0) == 750
    assert Backoff(lambda: 0.0).milliseconds(10_000) == 30_000


def test_a_claim_reads_as_lanes_and_events() -> None:
    assert str(claim(a=[GOOD])) == "1 lane, 1 event: a"
    lanes = tuple(ClaimedLane(f"m{n}", 0, 0, entries(f"m{n}", GOOD, GOOD)) for n in range(7))
    assert str(Claim(1, lanes)) == "7 lanes, 14 events: m0, m1, m2, m3, m4, …"


def test_a_lane_of_a_snapshot_says_so_and_has_its_topics_own_partition() -> None:
    # Mutant: the number that counts through both topics handed on: what is set aside would be stored under no partition.
    aside: list[Rejection] = []
    seen: list[tuple[str, int, bool]] = []

    def handler(turn: Turn) -> None:
        for lane in turn:
            seen.append((lane.merchant, lane.partition, lane.snapshot))
            lane.reject(0, "too long")

    rows = ClaimedLane("6", PARTITIONS + 3, 0, entries("6", "{", GOOD), snapshot=True)
    finish = run(handler, Claim(1, (rows,)), aside=aside)
    assert finish.outcomes == (Outcome("6", 2, "done"),)
    assert seen == [("6", 3, True)]
    assert [(one.partition, one.offset, one.snapshot) for one in aside] == [(3, 10, True), (3, 11, True)]
    assert str(Claim(1, (rows,))) == "1 lane, 2 events: s.6"


def test_entries_survive_the_list() -> None:
    assert decode_entry(encode_entry(7, b"a\nb")) == Entry(7, b"a\nb")
    assert decode_entry(encode_entry(0, b"")) == Entry(0, b"")
