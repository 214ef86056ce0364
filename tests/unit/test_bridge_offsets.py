"""What is pending, and the smallest of it."""

from collections.abc import Sequence

from pipeline.bridge.offsets import Partition, SweepRecord
from pipeline.domain.routing import partition_of
from pipeline.domain.sweep import Sweep, encode_sweep
from pipeline.ports import Append
from tests.fakes.kafka import MemoryRecord

A, B = "6", "7"  # both belong to partition 0 of one
BUDGET = 1000


def partition() -> Partition:
    return Partition(0, 1, fence=1, committed=10)


def receive(subject: Partition, *records: tuple[int, str | None, bytes | None], now: float = 0.0) -> None:
    subject.receive(
        [MemoryRecord(offset, key.encode() if key else None, value) for offset, key, value in records],
        now,
        BUDGET,
    )


def send(subject: Partition, now: float = 0.0) -> Sequence[Append]:
    """Append everything that waits, as a lane store would."""
    appends = [
        Append(one.lane, one.partition, one.previous, tuple(one.offsets), tuple(one.values))
        for one in subject.appends()
    ]
    for one in appends:
        subject.appended(one.lane, one.offsets[-1], now)
    return appends


def test_records_are_appended_by_merchant_in_offset_order() -> None:
    subject = partition()
    receive(subject, (10, A, b"a"), (11, B, b"b"), (12, A, b"c"))
    assert send(subject) == [Append(A, 0, None, (10, 12), (b"a", b"c")), Append(B, 0, None, (11,), (b"b",))]
    receive(subject, (13, A, b"d"))
    assert send(subject) == [Append(A, 0, 12, (13,), (b"d",))]
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
    subject.accept(B, 13)
    assert subject.smallest_pending() == 10
    subject.accept(A, 10)
    assert subject.smallest_pending() == 12
    subject.accept(A, 12)
    assert subject.smallest_pending() is None


def test_acknowledgements_are_cumulative_and_repeatable() -> None:
    subject = partition()
    receive(subject, (10, A, b"a"), (11, A, b"b"))
    send(subject)
    receive(subject, (12, A, b"c"))
    send(subject)
    subject.accept(A, 11)
    subject.accept(A, 10)
    assert subject.smallest_pending() == 12
    subject.accept(A, 99)
    subject.accept("unknown", 99)
    assert (subject.smallest_pending(), subject.size, subject.pending_lanes) == (None, 0, 0)


def test_a_lost_reply_whose_events_were_accepted_is_sent_again_with_what_came_since() -> None:
    # Mutant: Lane.receive() without the branch for a chunk that has left `chunks`: 12 would never be pending.
    subject = partition()
    receive(subject, (10, A, b"a"), (11, A, b"b"))
    subject.accept(A, 11)
    receive(subject, (12, A, b"c"))
    assert subject.smallest_pending() == 12
    assert [one.offsets for one in subject.appends()] == [[10, 11, 12]]
    assert subject.size == 1


def test_bytes_count_from_reading_to_acceptance() -> None:
    subject = partition()
    receive(subject, (10, A, b"x" * 30), (11, A, b"x" * 10), (12, B, b"x" * 5))
    send(subject)
    assert subject.size == 45
    subject.accept(A, 10)  # by the mean of its chunk
    assert subject.size == 25
    subject.accept(A, 11)
    assert subject.size == 5


def test_a_lane_over_its_budget_is_full_until_half() -> None:
    subject = partition()
    receive(subject, (10, A, b"x" * 600))
    send(subject)
    assert not subject.still_full(500)
    receive(subject, (11, A, b"x" * 600))
    send(subject)
    assert subject.still_full(500)
    subject.accept(A, 10)
    assert subject.still_full(500)
    subject.accept(A, 11)
    assert not subject.still_full(500)


def test_records_that_belong_to_no_lane_wait_with_their_reason_and_hold_the_watermark() -> None:
    wrong = next(str(number) for number in range(100) if partition_of(str(number), 2) == 1)
    subject = Partition(0, 2, fence=1, committed=0)
    right = next(str(number) for number in range(100) if partition_of(str(number), 2) == 0)
    records = [
        (0, None, b"a"),
        (1, "no merchant!", b"b"),
        (2, wrong, b"c"),
        (3, right, None),
        (4, right, b"d"),
    ]
    receive(subject, *records)
    strange = {one.offset: (one.merchant, one.reason, one.payload) for one in subject.strange}
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
    assert subject.overdue(10.0, 10.0, 5) == [Append(A, 0, 10, (), ()), Append(B, 0, 11, (), ())]
    assert len(subject.overdue(10.0, 10.0, 1)) == 1
    subject.appended(A, 10, 10.0)
    assert [one.lane for one in subject.overdue(12.0, 10.0, 5)] == [B]


def test_the_base_of_a_lane_is_below_its_smallest_pending_or_the_position() -> None:
    subject = partition()
    receive(subject, (10, A, b"a"), (11, B, b"b"), (12, A, b"c"))
    send(subject)
    subject.accept(A, 10)
    subject.accept(B, 11)
    assert (subject.base_of(A), subject.base_of(B)) == (11, 12)


def test_partitions_beyond_the_first_topics_hold_rows_of_snapshots() -> None:
    subject = Partition(3, 3, fence=1, committed=0)  # the first of the second topic
    home = next(str(number) for number in range(100) if partition_of(str(number), 3) == 0)
    other = next(str(number) for number in range(100) if partition_of(str(number), 3) == 1)
    receive(subject, (0, home, b"a"), (1, other, b"b"))
    assert send(subject) == [Append(f"s.{home}", 3, None, (0,), (b"a",))]
    [strange] = subject.strange
    assert (strange.partition, strange.snapshot) == (0, True)
    assert strange.reason == f'merchant "{other}" belongs to partition 1, not 0'
    subject.accept(f"s.{home}", 0)
    assert subject.smallest_pending() == 1


def test_sweeps_wait_for_what_is_before_them_and_hold_the_watermark() -> None:
    # Mutant: reached() that compares nothing.
    subject, sweep = partition(), Sweep(1, "sweep", "1", "shop", "public.t", "t", None, "1", "truncate")
    value = encode_sweep(sweep)
    receive(subject, (10, None, value), (11, A, b"a"), (12, None, value), (13, None, b"x"), (14, None, value))
    send(subject)
    assert [record.offset for record in subject.reached()] == [10]
    subject.passed(subject.reached())
    subject.accept(A, 11)
    assert subject.reached() == [SweepRecord(0, 12, sweep)]
    assert subject.smallest_pending() == 12
    subject.passed(subject.reached())
    assert subject.smallest_pending() == 13
    subject.strange = []
    assert [record.offset for record in subject.reached()] == [14]
    assert subject.smallest_pending() == 14


def test_a_passage_of_another_partition_passes_nothing_here() -> None:
    # Mutant: told apart by offset alone.
    subject, sweep = partition(), Sweep(1, "sweep", "1", "shop", "public.t", "t", None, "1", "truncate")
    receive(subject, (10, None, encode_sweep(sweep)))
    subject.passed([SweepRecord(1, 10, sweep)])
    assert subject.smallest_pending() == 10
