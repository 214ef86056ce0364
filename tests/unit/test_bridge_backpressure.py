"""Which partitions may flow."""

from pipeline.bridge.backpressure import SNAPSHOT_STORE_LIMIT, STORE_LIMIT, Flow
from pipeline.bridge.offsets import Partition
from pipeline.errors import TransientError
from pipeline.ports import Appended, News, Tenure
from tests.fakes.kafka import MemoryRecord

NONE, BOTH = frozenset[int](), frozenset({0, 1})


class Store:
    """A lane store's memory, set by hand."""

    def __init__(self) -> None:
        self.used: float | None = 0.0
        self.asked = 0

    def pressure(self) -> float:
        self.asked += 1
        if self.used is None:
            raise TransientError("redis: switched off")
        return self.used


def flow(
    store: Store, *, lane_bytes: int = 100, pending_bytes: int = 1000, snapshot_bytes: int = 500
) -> Flow:
    return Flow(
        lane_bytes=lane_bytes,
        pending_bytes=pending_bytes,
        snapshot_bytes=snapshot_bytes,
        pressure=store.pressure,
    )


def partitions() -> list[Partition]:
    return [Partition(number, 2, Tenure(1, 3), committed=0) for number in range(2)]


def snapshots() -> Partition:
    """The partition of snapshot rows beside partition 0."""
    return Partition(2, 2, Tenure(1, 3), committed=0)


def fill(subject: Partition, offset: int, size: int, limit: int) -> None:
    """One more appended event of merchant 6, which belongs to partition 0 of two."""
    subject.receive([MemoryRecord(offset, b"6", b"x" * size)], 0.0, limit)
    for append in list(subject.appends()):
        subject.answered(Appended(append.lane, subject.number, offset, -1, 3), 0.0)


def test_what_could_not_be_appended_pauses_its_partition() -> None:
    held, subject = partitions(), flow(Store())
    held[0].receive([MemoryRecord(0, b"6", b"x")], 0.0, 10**6)
    assert subject.paused(held, 0.0) == {0}


def test_too_much_pending_in_all_pauses_everything_until_half() -> None:
    held, subject = partitions(), flow(Store(), lane_bytes=10_000)
    fill(held[0], 0, 600, 10**6)
    fill(held[0], 1, 600, 10**6)
    assert subject.paused(held, 0.0) == BOTH
    held[0].accept(News("6", 3, 0))
    assert subject.paused(held, 0.0) == BOTH
    held[0].accept(News("6", 3, 1))
    assert subject.paused(held, 0.0) == NONE


def test_a_store_over_its_limit_pauses_everything_until_it_is_below() -> None:
    store, held = Store(), partitions()
    subject = flow(store)
    store.used = STORE_LIMIT + 0.01
    assert subject.paused(held, 0.0) == BOTH
    store.used = STORE_LIMIT
    assert subject.paused(held, 1.0) == NONE


def test_the_store_is_asked_once_a_second_and_its_last_answer_stands() -> None:
    store, held = Store(), partitions()
    subject = flow(store)
    store.used = 1.0
    assert [subject.paused(held, now) for now in (0.0, 0.5)] == [BOTH, BOTH]
    assert store.asked == 1
    store.used = None
    assert subject.paused(held, 1.0) == BOTH


# Mutant: one budget for both (snapshot_bytes counted into pending_bytes, or never looked at).
def test_rows_of_snapshots_have_a_budget_of_their_own_and_take_none_from_changes() -> None:
    held, rows = partitions(), snapshots()
    subject = flow(Store(), lane_bytes=10_000, pending_bytes=1000, snapshot_bytes=500)
    fill(rows, 0, 500, 10**6)
    fill(held[0], 0, 900, 10**6)
    assert subject.paused([*held, rows], 0.0) == NONE
    fill(rows, 1, 300, 10**6)
    assert subject.paused([*held, rows], 0.0) == {2}
    rows.accept(News("s.6", 3, 0))
    assert subject.paused([*held, rows], 0.0) == {2}
    rows.accept(News("s.6", 3, 1))
    assert subject.paused([*held, rows], 0.0) == NONE


def test_too_many_changes_pause_snapshots_too() -> None:
    held, rows = partitions(), snapshots()
    subject = flow(Store(), lane_bytes=10_000)
    fill(held[0], 0, 1100, 10**6)
    assert subject.paused([*held, rows], 0.0) == {0, 1, 2}


def test_a_store_that_fills_up_pauses_snapshots_before_changes() -> None:
    store, held = Store(), [*partitions(), snapshots()]
    subject = flow(store)
    store.used = SNAPSHOT_STORE_LIMIT + 0.01
    assert subject.paused(held, 0.0) == {2}
    store.used = STORE_LIMIT + 0.01
    assert subject.paused(held, 1.0) == {0, 1, 2}
    store.used = SNAPSHOT_STORE_LIMIT
    assert subject.paused(held, 2.0) == NONE


def test_a_lane_may_hold_a_sixteenth_once_half_of_everything_is_pending() -> None:
    # Mutant: the same bound whatever is pending: a few dozen lanes below it stop everybody.
    held, subject = partitions(), flow(Store(), lane_bytes=1600, pending_bytes=1000)
    fill(held[0], 0, 500, 10**6)
    subject.paused(held, 0.0)
    assert subject.lane_limit(snapshot=False) == 1600
    fill(held[0], 1, 1, 10**6)
    subject.paused(held, 0.0)
    assert (subject.lane_limit(snapshot=False), subject.lane_limit(snapshot=True)) == (100, 1600)


def test_detached_lanes_share_half_of_what_may_be_pending() -> None:
    # Mutant: each fed up to `lane_bytes`: many of them fill the budget, and pause everybody's partitions.
    mib = 1024 * 1024
    subject = flow(Store(), lane_bytes=16 * mib, pending_bytes=512 * mib)
    limits = [subject.fed_limit(lanes, snapshot=False) for lanes in (0, 1, 16, 32, 1024, 10**6)]
    assert limits == [16 * mib, 16 * mib, 16 * mib, 8 * mib, mib // 4, mib // 16]
