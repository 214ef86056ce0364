"""A replay's turns: each merchant in order, failing ones alone and then without their rest."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from pipeline.consumer import Event, SinkUnavailableError, Turn
from pipeline.lanes.claim import TurnLimits
from pipeline.lanes.turn import Backoff
from pipeline.replay.rehearsal import Became, change, rehearse
from pipeline.replay.turns import Published, Told, Turns

DONE = Became("done")


def events(*merchants: str) -> list[Event]:
    return [change(n, merchant, "payment", {"id": n}) for n, merchant in enumerate(merchants, 1)]


def records(*merchants: str) -> list[Published]:
    return [
        Published(one.merchant, 0, n, msgspec.json.encode(one)) for n, one in enumerate(events(*merchants), 1)
    ]


class Seen:
    """A handler that accepts everything, and what it was given: numbers per lane and turn."""

    def __init__(self, decide: Callable[[Turn], None] | None = None) -> None:
        self.turns: list[list[list[int]]] = []
        self.tokens: list[int] = []
        self._decide = decide

    def __call__(self, turn: Turn) -> None:
        self.turns.append([[event.ev for event in lane.events] for lane in turn])
        self.tokens.append(turn.token)
        if self._decide is not None:
            self._decide(turn)
            return
        for lane in turn:
            lane.done()


def turns(handler: Callable[[Turn], None], pauses: list[float] | None = None, **limits: int) -> Turns:
    waited = pauses if pauses is not None else []
    return Turns(
        "c",
        handler,
        TurnLimits(**limits),
        partitions=1,
        attempts=3,
        backoff=Backoff(lambda: 0.0),
        pause=waited.append,
    )


def test_merchants_are_grouped_in_order_within_the_limits() -> None:
    # Mutant: the limit of events is per lane.
    seen = Seen()
    assert rehearse(seen, events(*"aabacb"), group=2, turn_events=4) == [DONE] * 6
    assert seen.turns == [[[1, 2, 4], [3]], [[5], [6]]]


def test_a_merchant_whose_turn_is_full_goes_on_after_the_others() -> None:
    seen = Seen()
    rehearse(seen, events(*"aaab"), group=1, turn_events=2)
    assert seen.turns == [[[1, 2]], [[4]], [[3]]]


def test_bytes_limit_a_turn_and_the_first_record_always_fits() -> None:
    seen, size = Seen(), len(records("a")[0].value)
    list(turns(seen, group=9, bytes=2 * size).run(records(*"abc")))
    list(turns(seen, group=9, bytes=1).run(records(*"ab")))
    assert seen.turns == [[[1], [2]], [[3]], [[1]], [[2]]]


def test_tokens_lie_below_every_live_one_and_grow() -> None:
    seen = Seen()
    rehearse(seen, events(*"abc"))
    assert seen.tokens == [1, 2, 3]


def test_what_is_rejected_is_told_with_its_reason() -> None:
    def decide(turn: Turn) -> None:
        for lane in turn:
            lane.reject(1, "too old")
            lane.done()

    assert rehearse(decide, [*events("a", "a", "a"), b"{", b'{"merchant":"a"}']) == [
        DONE,
        Became("rejected", "too old"),
        DONE,
        Became("rejected", "not an event of envelope version 1: it names no merchant"),
        Became("rejected", "not an event of envelope version 1: Object missing required field `e`"),
    ]


def test_a_failing_merchant_goes_alone_and_is_given_up_with_its_rest() -> None:
    # Mutants: the rest is handed on after the failed one; the failing lane takes others with it.
    def decide(turn: Turn) -> None:
        for lane in turn:
            if lane.merchant != "b":
                lane.done()
            else:
                lane.done(1 if lane.offsets[0] < 4 else 0)
                lane.retry("full", after=0.5)

    seen, pauses = Seen(decide), list[float]()
    replaying = turns(seen, pauses, group=9)
    told = list(replaying.run(records(*"abbbbbbc")))
    assert [(one.record.offset, one.what) for one in told if one.record.merchant == "b"] == [
        (2, "done"),
        (3, "done"),
        (4, "failed"),
        (5, "skipped"),
        (6, "skipped"),
        (7, "skipped"),
    ]
    assert {one.what for one in told if one.record.merchant != "b"} == {"done"}
    assert seen.turns == [[[1], [2, 3, 4, 5, 6, 7], [8]], [[3, 4, 5, 6, 7]], *[[[4, 5, 6, 7]]] * 2]
    assert pauses == [0.5] * 3  # the fourth event has failed once when the turn before it stopped there
    later = list(replaying.run(records("b", "a")))
    assert [(one.record.merchant, one.what) for one in later] == [("b", "skipped"), ("a", "done")]


def test_a_parked_merchant_is_given_up_at_once() -> None:
    def decide(turn: Turn) -> None:
        for lane in turn:
            lane.done(1)
            lane.park("no such account")

    assert rehearse(decide, events("a", "a", "a", "b"), group=2, attempts=9) == [
        DONE,
        Became("failed", "no such account"),
        Became("skipped", "after one that failed"),
        DONE,
    ]


def test_a_merchant_that_recovers_is_not_given_up() -> None:
    def decide(turn: Turn) -> None:
        (lane,) = turn
        lane.done() if lane.failures == 2 else lane.retry("not yet")

    assert rehearse(decide, events("a", "a"), attempts=3) == [DONE, DONE]
    assert rehearse(decide, events("a", "a"), attempts=2) == [
        Became("failed", "not yet"),
        Became("skipped", "after one that failed"),
    ]


def test_a_sink_that_takes_nobody_ends_the_replay_and_blames_no_merchant() -> None:
    def decide(turn: Turn) -> None:
        raise SinkUnavailableError("down")

    seen, pauses = Seen(decide), list[float]()
    replaying = turns(seen, pauses)
    told = list(replaying.run(records("a", "b")))
    assert [(one.record.merchant, one.what, one.reason) for one in told] == [
        ("b", "unavailable", "down"),
        ("a", "unavailable", "down"),
    ]
    assert replaying.unavailable == "down"
    assert pauses == [0.25, 0.5]
    assert len(seen.turns) == 3


def test_a_sink_that_comes_back_goes_on() -> None:
    def decide(turn: Turn) -> None:
        if turn.token < 3:
            raise SinkUnavailableError("down")

    replaying = turns(decide)
    assert {one.what for one in replaying.run(records("a", "b", "a"))} == {"done"}
    assert replaying.unavailable == ""


@pytest.mark.parametrize(("group", "what"), [(1, "done"), (2, "failed")])
def test_returning_means_done_for_single_lanes_only(group: int, what: str) -> None:
    assert [one.what for one in rehearse(lambda turn: None, events("a"), group=group)] == [what]


def test_every_record_is_told_once() -> None:
    # Mutant: what is left of a lane after a part was done is forgotten.
    def decide(turn: Turn) -> None:
        for lane in turn:
            lane.done(1)

    got: list[Told] = list(turns(decide, group=3, events=5).run(records(*"abcabcabcaaaa")))
    assert sorted(one.record.offset for one in got) == list(range(1, 14))
    assert [one.record.offset for one in got if one.record.merchant == "a"] == [1, 4, 7, 10, 11, 12, 13]


@pytest.mark.parametrize(
    ("merchants", "turns"),
    [("abc", [[[1], [2]], [[3]], [[1]], [[2]]]), ("abccc", [[[1], [2]], [[3, 4]], [[1]], [[2]], [[5]]])],
)
def test_merchants_that_failed_go_one_at_a_time(merchants: str, turns: list[list[list[int]]]) -> None:
    # Mutants: a lane that failed joins others; others join it.
    def decide(turn: Turn) -> None:
        for lane in turn:
            lane.done() if lane.failures or lane.merchant == "c" else lane.retry("first")

    seen = Seen(decide)
    assert {one.what for one in rehearse(seen, events(*merchants), group=3, turn_events=2, attempts=2)} == {
        "done"
    }
    assert seen.turns == turns
