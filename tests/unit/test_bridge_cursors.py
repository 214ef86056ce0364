"""How detached lanes are read again, beside the live reader."""

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.cursors import Cursors
from pipeline.bridge.offsets import Partition
from pipeline.ports import Appended, DetachedRow, Detachment, News, State, Tenure
from tests.fakes.kafka import MemoryKafka, MemoryRereader

A, B, C = "6", "7", "acme"
BUDGET, NONE = 40, frozenset[int]()


class Bench:
    """One partition with records of three merchants in turn, read up to its end by the live reader, and its cursors."""

    def __init__(self, *rows: DetachedRow, readers: int = 1, records: int = 30, most: int = 6) -> None:
        self.kafka = MemoryKafka(1)
        for n in range(records):
            self.kafka.append(0, (A, B, C)[n % 3].encode(), b"x" * 10)
        self.partition = Partition(0, 1, Tenure(1, 3), 0, rows=rows)
        self.readers = [MemoryRereader(self.kafka, most) for _ in range(readers)]
        flow = Flow(lane_bytes=BUDGET, pending_bytes=10**6, snapshot_bytes=10**6, pressure=lambda: 0.0)
        self.cursors = Cursors(self.readers, flow)
        self.got: dict[str, list[int]] = {A: [], B: [], C: []}
        self.live(records)
        for row in rows:
            self.sync(row)

    def live(self, records: int) -> None:
        if records:
            batch = self.kafka.logs[0][self.partition.position : self.partition.position + records]
            self.partition.receive(batch, 0.0, 10**6)

    def sync(self, row: DetachedRow) -> None:
        base = row.first - 1
        self.partition.synced(Appended(row.lane, 0, base, base, row.incarnation), 0.0)

    def round(self, stopped: frozenset[int] = NONE, most: int | None = None) -> None:
        """Read, and append what was read."""
        self.cursors.read({0: self.partition}, stopped, most, 0.0)
        for one in list(self.partition.appends(fed=True)):
            assert one.incarnation is not None
            self.got[one.lane] += one.offsets
            self.partition.answered(Appended(one.lane, 0, one.offsets[-1], -1, one.incarnation), 0.0)

    def accept(self, lane: str) -> None:
        """The sink has accepted what it got."""
        incarnation = self.partition.detached[lane.encode()].incarnation
        self.partition.accept(News(lane, incarnation, self.got[lane][-1]))

    def until(self, lane: str, wanted: int) -> None:
        for _ in range(50):
            self.round()
            if self.got[lane]:
                self.accept(lane)
            if len(self.got[lane]) >= wanted:
                return
        raise AssertionError(self.got)

    def met(self) -> set[bytes]:
        return {key for _, until in self.cursors.met() for key in until}


def row(lane: str, first: int, state: State = "running", incarnation: int = 7) -> DetachedRow:
    return DetachedRow(lane, first, None, incarnation, state, "before")


def test_one_pass_feeds_every_lane_that_needs_nothing_before_it() -> None:
    bench = Bench(row(A, 3), row(B, 10))
    for _ in range(10):
        bench.round()
        for lane in (A, B):
            if bench.got[lane]:
                bench.accept(lane)
    assert bench.got == {A: list(range(3, 30, 3)), B: list(range(10, 30, 3)), C: []}
    assert len(bench.cursors.running) == 1


def test_stopped_lanes_are_not_fed() -> None:
    # Mutant: wants_feeding() that looks at no state.
    bench = Bench(row(A, 3, "paused"), row(B, 10, "parked"))
    bench.round()
    assert (bench.got, bench.cursors.running) == ({A: [], B: [], C: []}, [])


def test_a_full_lane_leaves_its_cursor_and_joins_a_later_one_at_half() -> None:
    # Mutant: a lane that is fed whatever it holds.
    bench = Bench(row(A, 0), row(B, 0), records=90)
    for _ in range(40):
        bench.round()
        if bench.got[B]:
            bench.accept(B)
    assert len(bench.got[A]) <= 6, "five, and what one poll brings more"
    assert bench.got[B] == list(range(1, 90, 3))
    bench.until(A, 30)
    assert bench.got[A] == list(range(0, 90, 3))


def test_a_second_cursor_serves_a_lane_behind_the_first() -> None:
    bench = Bench(row(A, 60), readers=2, records=90)
    bench.round()
    needed = row(B, 1, incarnation=8)
    bench.partition._add_detached(needed)
    bench.sync(needed)
    bench.round()
    assert (
        sorted(cursor.position for cursor in bench.cursors.running) == [6, 72]
        or len(bench.cursors.running) == 2
    )
    assert bench.got[B] == [1, 4]


def test_a_lane_that_is_detached_anew_is_read_again_from_where_it_stands() -> None:
    # Mutant: a cursor that knows the lanes it serves by their keys: it goes on, and what it has passed is left out.
    bench = Bench(row(A, 0), records=90)
    bench.until(A, 4)
    bench.got[A].clear()
    again = Detachment(A, 3, "running", "rewind: a person says so")
    bench.partition.detach(again, 8)
    bench.sync(row(A, 3, incarnation=8))
    bench.until(A, 29)
    assert bench.got[A] == list(range(3, 90, 3))


def test_lanes_are_handed_over_where_they_meet_the_live_reader() -> None:
    bench = Bench(row(A, 24))
    bench.round()
    assert bench.met() == {A.encode()}
    assert bench.cursors.running[0].position == 30


def test_no_record_beyond_the_live_reader_is_fed() -> None:
    # Mutant: _take() that keeps what lies at or beyond the live position.
    bench = Bench(row(A, 21), records=30)
    bench.partition.position = 27
    bench.round()
    assert (bench.got[A], bench.met()) == ([21, 24], {A.encode()})
    bench.partition.position = 30
    bench.round()
    assert bench.got[A] == [21, 24, 27]


def test_a_lane_near_its_budget_is_not_handed_over() -> None:
    bench = Bench(row(A, 18))
    bench.round()
    bench.round()
    assert (bench.got[A], bench.met()) == ([18, 21, 24, 27], set())
    bench.accept(A)
    bench.round()
    assert bench.met() == {A.encode()}


def test_what_could_not_be_appended_is_not_followed_by_more() -> None:
    # Mutant: _goes_on() that reads while something is unsent.
    bench = Bench(row(A, 0))
    bench.cursors.read({0: bench.partition}, NONE, None, 0.0)
    bench.cursors.read({0: bench.partition}, NONE, None, 0.0)
    assert [list(one.offsets) for one in bench.partition.appends(fed=True)] == [[0, 3]]


def test_a_stopped_partition_is_not_read() -> None:
    bench = Bench(row(A, 0))
    bench.round(frozenset({0}))
    assert bench.got[A] == []


def test_a_partition_taken_over_anew_gets_new_cursors() -> None:
    bench = Bench(row(A, 0))
    bench.round()
    bench.partition = Partition(0, 1, Tenure(2, 9), 0, rows=[row(A, 0)])
    bench.live(30)
    bench.sync(row(A, 0))
    bench.got[A] = []
    bench.round()
    assert bench.got[A] == [0, 3]


def test_what_passed_retention_parks_the_lane_and_says_which_offsets() -> None:
    # Mutant: going on at the first offset that is left.
    bench = Bench(row(A, 3), row(B, 16))
    bench.kafka.begin[0] = 12
    bench.round()
    need = bench.partition.needs[A.encode()]
    assert (need.state, need.reason) == (
        "parked",
        "offsets 3 to 11 passed retention before they were accepted: skip to 12, then snapshot what this merchant has",
    )
    bench.round()
    assert (bench.got[A], bench.got[B]) == ([], [16])
