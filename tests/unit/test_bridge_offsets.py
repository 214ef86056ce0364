"""What is pending, and the smallest of it."""

from collections.abc import Sequence

from msgspec.structs import replace

from pipeline.bridge.offsets import Partition
from pipeline.domain.routing import partition_of
from pipeline.domain.sweep import Sweep, encode_sweep
from pipeline.ports import Append, Appended, DetachedRow, Detachment, News, SweepRecord, Tenure
from tests.fakes.kafka import MemoryRecord

A, B = "6", "7"  # both belong to partition 0 of one
BUDGET, TENURE = 1000, Tenure(1, 3)


def partition() -> Partition:
    return Partition(0, 1, TENURE, committed=10)


def receive(subject: Partition, *records: tuple[int, str | None, bytes | None], now: float = 0.0) -> None:
    subject.receive(
        [MemoryRecord(offset, key.encode() if key else None, value) for offset, key, value in records],
        now,
        BUDGET,
    )


def reached(subject: Partition) -> list[SweepRecord]:
    subject.look_at_sweeps()
    return subject.aside.reached


def send(subject: Partition, now: float = 0.0) -> Sequence[Append]:
    """Append everything that waits, as a lane store would."""
    appends = [
        replace(one, offsets=tuple(one.offsets), values=tuple(one.values))
        for fed in (False, True)
        for one in subject.appends(fed=fed)
    ]
    for one in appends:
        answer(subject, one.lane, one.offsets[-1], now)
    return appends


def answer(
    subject: Partition,
    lane: str,
    enqueued: int,
    now: float = 0.0,
    *,
    acknowledged: int = -1,
    incarnation: int = 3,
) -> None:
    subject.answered(Appended(lane, subject.number, enqueued, acknowledged, incarnation), now)


def accept(subject: Partition, lane: str, offset: int, incarnation: int = 3) -> None:
    subject.accept(News(lane, incarnation, offset))


def test_records_are_appended_by_merchant_in_offset_order() -> None:
    subject = partition()
    receive(subject, (10, A, b"a"), (11, B, b"b"), (12, A, b"c"))
    assert send(subject) == [Append(A, 0, None, (10, 12), (b"a", b"c")), Append(B, 0, None, (11,), (b"b",))]
    receive(subject, (13, A, b"d"))
    assert send(subject) == [Append(A, 0, 12, (13,), (b"d",), 3)]
    assert not subject.waiting


def test_unsent_records_stay_queued_in_order() -> None:
    subject = partition()
    receive(subject, (10, A, b"a"))
    receive(subject, (11, A, b"b"))
    assert [one.offsets for one in subject.appends()] == [[10, 11]]
    assert subject.waiting


def test_unsent_records_hold_the_watermark() -> None:
    # Mutant: Lane.receive() that enters a chunk into `chunks` only once it is appended.
    subject = partition()
    receive(subject, (10, A, b"a"), (11, B, b"b"))
    assert subject.smallest_pending() == 10


def test_the_watermark_is_the_smallest_pending_offset_whoever_is_faster() -> None:
    subject = partition()
    receive(subject, (10, A, b"a"), (11, B, b"b"), (12, A, b"c"), (13, B, b"d"))
    send(subject)
    accept(subject, B, 13)
    assert subject.smallest_pending() == 10
    accept(subject, A, 10)
    assert subject.smallest_pending() == 12
    accept(subject, A, 12)
    assert subject.smallest_pending() is None


def test_acknowledgements_are_cumulative_and_repeatable() -> None:
    subject = partition()
    receive(subject, (10, A, b"a"), (11, A, b"b"))
    send(subject)
    receive(subject, (12, A, b"c"))
    send(subject)
    accept(subject, A, 11)
    accept(subject, A, 10)
    assert subject.smallest_pending() == 12
    accept(subject, A, 99)
    accept(subject, "unknown", 99)
    assert (subject.smallest_pending(), subject.size, subject.pending_lanes) == (None, 0, 0)


def test_a_lost_reply_whose_events_were_accepted_is_sent_again_with_what_came_since() -> None:
    # Mutant: Lane.receive() without the branch for a chunk that has left `chunks`: 12 would never be pending.
    subject = partition()
    receive(subject, (10, A, b"a"))
    send(subject)
    receive(subject, (11, A, b"b"))
    accept(subject, A, 11)
    receive(subject, (12, A, b"c"))
    assert subject.smallest_pending() == 12
    assert [one.offsets for one in subject.appends()] == [[11, 12]]
    assert subject.size == 1


def test_bytes_count_from_reading_to_acceptance() -> None:
    subject = partition()
    receive(subject, (10, A, b"x" * 30), (11, A, b"x" * 10), (12, B, b"x" * 5))
    send(subject)
    assert subject.size == 45
    accept(subject, A, 10)  # by the mean of its chunk
    assert subject.size == 25
    accept(subject, A, 11)
    assert subject.size == 5


def test_records_that_belong_to_no_lane_wait_with_their_reason_and_hold_the_watermark() -> None:
    wrong = next(str(number) for number in range(100) if partition_of(str(number), 2) == 1)
    subject = Partition(0, 2, TENURE, committed=0)
    right = next(str(number) for number in range(100) if partition_of(str(number), 2) == 0)
    records = [
        (0, None, b"a"),
        (1, "no merchant!", b"b"),
        (2, wrong, b"c"),
        (3, right, None),
        (4, right, b"d"),
    ]
    receive(subject, *records)
    strange = {one.offset: (one.merchant, one.reason, one.payload) for one in subject.aside.strange}
    assert strange == {
        0: ("", "a record without key", b"a"),
        1: ("", "the key b'no merchant!' is no merchant id", b"b"),
        2: ("", f'merchant "{wrong}" belongs to partition 1, not 0', b"c"),
        3: (right, "a record without value", b""),
    }
    assert [one.offsets for one in send(subject)] == [(4,)]
    assert (subject.smallest_pending(), subject.waiting) == (0, True)


def test_silent_lanes_are_asked_once_per_age() -> None:
    subject = partition()
    receive(subject, (10, A, b"a"), (11, B, b"b"), now=0.0)
    send(subject, now=0.0)
    assert subject.overdue(9.0, 10.0, 5) == []
    assert subject.overdue(10.0, 10.0, 5) == [Append(A, 0, 10, (), (), 3), Append(B, 0, 11, (), (), 3)]
    assert len(subject.overdue(10.0, 10.0, 1)) == 1
    answer(subject, A, 10, 10.0)
    assert [one.lane for one in subject.overdue(12.0, 10.0, 5)] == [B]


def test_partitions_beyond_the_first_topics_hold_rows_of_snapshots() -> None:
    subject = Partition(3, 3, TENURE, committed=0)  # the first of the second topic
    home = next(str(number) for number in range(100) if partition_of(str(number), 3) == 0)
    other = next(str(number) for number in range(100) if partition_of(str(number), 3) == 1)
    receive(subject, (0, home, b"a"), (1, other, b"b"))
    assert send(subject) == [Append(f"s.{home}", 3, None, (0,), (b"a",))]
    [strange] = subject.aside.strange
    assert (strange.partition, strange.snapshot) == (0, True)
    assert strange.reason == f'merchant "{other}" belongs to partition 1, not 0'
    accept(subject, f"s.{home}", 0)
    assert subject.smallest_pending() == 1


def test_sweeps_wait_for_what_is_before_them_and_hold_the_watermark() -> None:
    # Mutant: reached() that compares nothing.
    subject, sweep = partition(), Sweep(1, "sweep", "1", "shop", "public.t", "t", None, "1", "truncate")
    value = encode_sweep(sweep)
    receive(subject, (10, None, value), (11, A, b"a"), (12, None, value), (13, None, b"x"), (14, None, value))
    send(subject)
    assert [record.offset for record in reached(subject)] == [10]
    subject.aside.passed(reached(subject))
    accept(subject, A, 11)
    assert reached(subject) == [SweepRecord(0, 12, sweep)]
    assert subject.smallest_pending() == 12
    subject.aside.passed(reached(subject))
    assert subject.smallest_pending() == 13
    subject.aside.strange = []
    assert [record.offset for record in reached(subject)] == [14]
    assert subject.smallest_pending() == 14


def test_a_passage_of_another_partition_passes_nothing_here() -> None:
    # Mutant: told apart by offset alone.
    subject, sweep = partition(), Sweep(1, "sweep", "1", "shop", "public.t", "t", None, "1", "truncate")
    receive(subject, (10, None, encode_sweep(sweep)))
    subject.aside.passed([SweepRecord(1, 10, sweep)])
    assert subject.smallest_pending() == 10


# Detached lanes


def detach(subject: Partition, incarnation: int = 7) -> list[Detachment]:
    needed = subject.needed(10)
    for one in needed:
        subject.detach(one, incarnation)
        subject.synced(Appended(one.lane, 0, one.first - 1, one.first - 1, incarnation), 0.0)
    return needed


def test_a_lane_over_its_budget_is_to_be_detached_before_more_is_appended() -> None:
    subject = partition()
    receive(subject, (10, A, b"x" * 600), (11, B, b"b"))
    send(subject)
    receive(subject, (12, A, b"x" * 600))
    assert list(subject.appends()) == []
    assert detach(subject) == [Detachment(A, 10, "running", "more than 1000 bytes waited")]
    assert (subject.smallest_pending(), subject.size) == (11, 1)


def test_the_live_reader_passes_a_detached_lane_over_and_the_watermark_ignores_it() -> None:
    # Mutant: receive() that asks for no detached lane.
    row = DetachedRow(A, 4, None, 7, "paused", "by a person")
    subject = Partition(0, 1, TENURE, 10, rows=[row])
    receive(subject, (10, A, b"a"), (11, B, b"b"))
    assert [one.lane for one in send(subject)] == [B]
    assert subject.smallest_pending() == 11
    accept(subject, B, 11)
    assert (subject.smallest_pending(), subject.position, subject.first_of(A)) == (None, 12, 4)


def test_what_another_incarnation_accepted_is_ignored() -> None:
    # Mutant: accept() that compares no incarnations.
    subject = partition()
    receive(subject, (10, A, b"a"), (11, A, b"b"))
    send(subject)
    accept(subject, A, 11, incarnation=2)
    assert subject.smallest_pending() == 10


def test_a_fed_lane_is_handed_over_where_it_meets_the_live_reader_and_closes_when_it_is_accepted() -> None:
    # Mutant: first = last accepted + 1 at best, which never reaches until when the lane has nothing just before it.
    row = DetachedRow(A, 4, None, 7, "running", "over its budget")
    subject = Partition(0, 1, TENURE, 10, rows=[row])
    subject.synced(Appended(A, 0, 3, 3, 7), 0.0)
    receive(subject, (10, B, b"b"), (11, A, b"d"), (12, B, b"e"))
    subject.feed(A.encode(), [4, 11], [b"a", b"d"], 0.0)
    assert [one.offsets for one in subject.appends(fed=True)] == [[4, 11]]
    answer(subject, A, 11, incarnation=7)
    subject.hand_over(A.encode(), 13)
    receive(subject, (13, A, b"f"))
    assert [(one.previous, one.offsets, one.incarnation) for one in subject.appends() if one.lane == A] == [
        (11, [13], 7)
    ]
    accept(subject, A, 4, incarnation=7)
    lane = subject.detached[A.encode()]
    assert (lane.first, lane.finished, subject.first_of(A)) == (5, False, 5)
    accept(subject, A, 11, incarnation=7)
    assert (lane.first, lane.finished, subject.first_of(A)) == (13, True, 13)
    subject.close(A.encode())
    assert subject.smallest_pending() == 10
    accept(subject, A, 13, incarnation=7)
    assert subject.size == 2


def test_a_lane_that_missed_nothing_is_handed_over_and_closes_at_once() -> None:
    subject = Partition(0, 1, TENURE, 10, rows=[DetachedRow(A, 10, None, 7, "running", "resumed")])
    subject.synced(Appended(A, 0, 9, 9, 7), 0.0)
    subject.hand_over(A.encode(), 10)
    assert subject.detached[A.encode()].finished


def test_a_damaged_lane_keeps_its_state_and_a_parked_one_says_why() -> None:
    subject = Partition(0, 1, TENURE, 10, rows=[DetachedRow(A, 4, None, 7, "paused", "by a person")])
    subject.synced(Appended(A, 0, 3, 3, 9, damaged=True), 0.0)
    receive(subject, (10, B, b"b"))
    send(subject)
    subject.accept(News(B, 3, 9, "no such account"))
    needed = {one.lane: (one.first, one.state, one.reason) for one in subject.needed(10)}
    assert needed[B] == (10, "parked", "no such account")
    assert needed[A][:2] == (4, "paused")


def test_silent_fed_lanes_are_asked_too() -> None:
    # Mutant: overdue() that looks at live lanes alone.
    subject = Partition(0, 1, TENURE, 10, rows=[DetachedRow(A, 4, None, 7, "running", "over its budget")])
    subject.synced(Appended(A, 0, 8, 3, 7), 0.0)  # its list holds what a bridge before this one has appended
    assert subject.overdue(9.0, 10.0, 5) == []
    assert subject.overdue(10.0, 10.0, 5) == [Append(A, 0, 8, (), (), 7)]
    subject.hand_over(A.encode(), 10)
    assert subject.overdue(10.0, 10.0, 5) == [Append(A, 0, 8, (), (), 7)]
    accept(subject, A, 8, incarnation=7)
    assert subject.overdue(30.0, 10.0, 5) == []


def test_sweeps_wait_for_detached_lanes_without_holding_the_watermark() -> None:
    # Mutant: look_at_sweeps() without the detached lanes.
    sweep = Sweep(1, "sweep", "1", "shop", "public.t", "t", None, "1", "truncate")
    subject = Partition(0, 1, TENURE, 10, rows=[DetachedRow(A, 4, None, 7, "parked", "poison")])
    receive(subject, (10, None, encode_sweep(sweep)), (11, B, b"b"))
    assert reached(subject) == []
    assert [one.offset for one in subject.aside.to_wait] == [10]
    subject.aside.waits(subject.aside.to_wait)
    assert subject.smallest_pending() == 11
    del subject.detached[A.encode()]
    assert [one.offset for one in reached(subject)] == [10]


def test_a_sweep_waits_for_the_detached_lane_that_stands_furthest_back() -> None:
    # Mutants in Slowest: an entry that is not raised as its lane gets on; one that stands when the lane is gone, or was
    # detached anew further back.
    sweep = Sweep(1, "sweep", "1", "shop", "public.t", "t", None, "1", "truncate")
    rows = [DetachedRow(lane, first, None, 7, "running", "x") for lane, first in ((A, 4), (B, 6))]
    subject = Partition(0, 1, TENURE, 10, rows=rows)
    for one in rows:
        subject.synced(Appended(one.lane, 0, 9, one.first - 1, 7), 0.0)
    receive(subject, (10, None, encode_sweep(sweep)), (11, "acme", None))
    subject.aside.strange = []
    assert reached(subject) == []
    accept(subject, A, 10, incarnation=7)
    assert reached(subject) == []
    accept(subject, B, 11, incarnation=7)
    assert [one.offset for one in reached(subject)] == [10]
    subject.detach(Detachment(B, 5, "running", "rewind"), 8)
    assert reached(subject) == []
    accept(subject, B, 11, incarnation=8)
    assert [one.offset for one in reached(subject)] == [10]
    subject.detach(Detachment(A, 2, "running", "rewind"), 9)
    assert reached(subject) == []
    subject.close(A.encode())
    assert [one.offset for one in reached(subject)] == [10]


def test_a_sweep_that_waits_passes_only_once_it_was_read_again() -> None:
    # Mutant: `waiting` passed whatever the live lanes have done.
    sweep = Sweep(1, "sweep", "1", "shop", "public.t", "t", None, "1", "truncate")
    subject = partition()
    subject.aside.waiting = [SweepRecord(0, 12, sweep)]
    receive(subject, (10, A, b"a"))
    assert reached(subject) == []
    receive(subject, (11, B, b"b"), (12, None, encode_sweep(sweep)))
    send(subject)
    accept(subject, A, 10)
    assert (reached(subject), len(subject.aside.sweeps)) == ([], 0)
    accept(subject, B, 11)
    assert [one.offset for one in reached(subject)] == [12]


def test_a_lane_whose_head_is_slow_is_to_be_detached() -> None:
    subject = partition()
    receive(subject, (10, A, b"a"), now=0.0)
    send(subject)
    receive(subject, *((11 + n, B, b"b") for n in range(100)), now=5.0)
    subject.slow(9.0, 10.0, 50)
    assert not subject.needs
    subject.slow(11.0, 10.0, 500)
    assert not subject.needs
    subject.slow(11.0, 10.0, 50)
    assert list(subject.needs) == [A.encode()]


def test_no_lane_is_called_slow_while_most_of_them_wait() -> None:
    # Mutant: slow() that counts nobody: a sink that is away has every lane detached.
    subject = partition()
    receive(subject, *((10 + n, str(n), b"a") for n in range(20)), now=0.0)
    send(subject)
    subject.slow(11.0, 10.0, 0)
    assert not subject.needs
    for n in range(10, 20):
        accept(subject, str(n), 10 + n)
    subject.slow(11.0, 10.0, 0)
    assert len(subject.needs) == 10
