"""What becomes of a person's request, wherever the lane stands."""

import pytest

from pipeline.bridge.offsets import Partition
from pipeline.bridge.operators import decide
from pipeline.ports import Appended, DetachedRow, Detachment, Request, State, Tenure, Verb
from tests.fakes.kafka import MemoryRecord

LANE = "6"


def partition(state: State | None = None, first: int = 10, position: int = 20) -> Partition:
    """Partition 0 of one, read up to `position`, the lane detached at `first` or else with 15 pending."""
    rows = [] if state is None else [DetachedRow(LANE, first, None, 7, state, "before")]
    subject = Partition(0, 1, Tenure(1, 3), 10, rows=rows)
    records = [MemoryRecord(15, LANE.encode(), b"a"), MemoryRecord(position - 1, b"7", b"b")]
    subject.receive(records, 0.0, 1000)
    for one in list(subject.appends()):
        subject.answered(Appended(one.lane, 0, one.offsets[-1], -1, 3), 0.0)
    return subject


def request(verb: Verb, offset: int | None = None, expected: int | None = None) -> Request:
    return Request(1, 0, LANE, verb, "because", offset, expected)


@pytest.mark.parametrize(
    ("state", "verb", "after"),
    [
        (None, "pause", "paused"),
        ("running", "pause", "paused"),
        ("parked", "pause", "paused"),
        ("paused", "resume", "running"),
        ("parked", "release", "running"),
        (None, "resync", "running"),
        ("parked", "resync", "parked"),
    ],
)
def test_the_lane_goes_on_where_it_stood(state: State | None, verb: Verb, after: State) -> None:
    first = 15 if state is None else 10
    reason = f"{verb}: because" + ("; parked for: before" if state == "parked" and after != "running" else "")
    assert decide(partition(state), request(verb)) == Detachment(LANE, first, after, reason, 1)


@pytest.mark.parametrize(
    ("state", "verb", "why"),
    [
        (None, "resume", "is not paused but running"),
        ("parked", "resume", "is not paused but parked"),
        ("paused", "release", "is not parked but paused"),
        (None, "skip", "only a paused or parked lane"),
    ],
)
def test_what_does_not_fit_the_state_is_refused(state: State | None, verb: Verb, why: str) -> None:
    answer = decide(partition(state), request(verb, 12, 10))
    assert isinstance(answer, str) and why in answer


def test_a_rewind_goes_back_and_never_forward() -> None:
    # Mutant: first = offset, whatever is unaccepted before it.
    assert decide(partition(), request("rewind", 3)) == Detachment(LANE, 3, "running", "rewind: because", 1)
    answer = decide(partition(), request("rewind", 16))
    assert isinstance(answer, str) and "to go forward, skip" in answer


def test_a_rewind_of_a_lane_that_is_done_begins_at_its_offset() -> None:
    subject = Partition(0, 1, Tenure(1, 3), 10)
    assert decide(subject, request("rewind", 4)) == Detachment(LANE, 4, "running", "rewind: because", 1)


def test_a_skip_takes_what_was_looked_at_or_nothing() -> None:
    # Mutant: `expected` not compared.
    row = Detachment(LANE, 12, "parked", "skip: because; parked for: before", 1)
    assert decide(partition("parked"), request("skip", 12, 10)) == row
    moved = decide(partition("parked", first=11), request("skip", 12, 10))
    assert isinstance(moved, str) and "has moved on to offset 11" in moved
    for nowhere in (10, 21):
        assert "is not between" in str(decide(partition("parked"), request("skip", nowhere, 10)))


def test_what_a_lane_was_parked_for_stays_until_it_runs() -> None:
    # Mutants: the newest request alone is told; each one adds what all before it have said.
    subject, verbs = partition("parked"), list[Verb](["skip", "rewind", "pause", "resync"])
    for verb in verbs:
        answer = decide(subject, request(verb, 12 if verb == "skip" else 3, 10))
        assert isinstance(answer, Detachment)
        assert answer.reason == f"{verb}: because; parked for: before"
        subject.detach(answer, 8)
    assert subject.state_of(LANE) == "paused"
    answer = decide(subject, request("resume"))
    assert isinstance(answer, Detachment)
    assert answer.reason == "resume: because"


def test_a_lane_of_another_partition_is_refused() -> None:
    strange = Request(1, 0, "s.6", "pause", "because")
    assert "does not belong to partition 0" in str(decide(partition(), strange))
