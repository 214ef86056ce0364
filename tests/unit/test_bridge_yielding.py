"""A backlog yields to whoever is up to date: it comes in slices, and rests after each; alone it comes whole."""

from collections.abc import Mapping, Sequence, Set
from itertools import pairwise

import pytest

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.dispatcher import Dispatcher
from pipeline.bridge.pace import GLANCE
from pipeline.bridge.yielding import Yielding
from pipeline.domain.routing import partition_of
from pipeline.ports import Append, Appended, Polled, Request, Tenure
from tests.fakes.books import MemoryBooks
from tests.fakes.kafka import MemoryKafka, MemoryMember, MemoryRereader
from tests.fakes.lane_store import MemoryLaneStore

BUSY, LIVE, AGAIN = "6", "12", "8"  # the first in a partition of its own
PIECE, SLICE = 50, 10
ROUND = 0.001


class Store(MemoryLaneStore):
    """Appending a record takes so many seconds of the bench's clock; notes when a lane got how much."""

    def __init__(self, bench: "Bench") -> None:
        super().__init__()
        self.seconds = 0.001
        self.bench = bench
        self.got: dict[str, list[tuple[float, int]]] = {BUSY: [], LIVE: [], AGAIN: []}

    def add(self, epoch: str, tenures: Mapping[int, Tenure], appends: Sequence[Append]) -> Sequence[Appended]:
        for append in appends:
            if append.offsets:
                self.got[append.lane].append((self.bench.now, len(append.offsets)))
                self.bench.now += len(append.offsets) * self.seconds
        return super().add(epoch, tenures, appends)


class Member(MemoryMember):
    """A member of the bench's group; a poll that brings nothing takes the time that it may wait."""

    bench: "Bench"
    waited = 0.0

    def poll(self, timeout: float, most: int | None = None, resting: Set[int] = frozenset()) -> Polled:
        self.waited = timeout
        polled = super().poll(timeout, most, resting)
        if not polled.records:
            self.bench.now += timeout
        return polled


class Bench:
    """A bridge of two partitions; a poll brings at most a piece of each, and none of it by itself takes time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.kafka = MemoryKafka(2)
        self.kafka.positions = {0: 0, 1: 0}
        self.member = Member(self.kafka, most=PIECE)
        self.member.bench = self
        for number in (0, 1):
            self.kafka.give(number, self.member)
        self.store = Store(self)
        self.books = MemoryBooks()
        flow = Flow(lane_bytes=10**6, pending_bytes=10**6, snapshot_bytes=10**6, pressure=lambda: 0.0)
        self.dispatcher = Dispatcher(
            self.member, self.member, self.store, self.books, [MemoryRereader(self.kafka, most=PIECE)],
            partitions=2, flow=flow, yielding=Yielding(behind=PIECE, least=SLICE), clock=lambda: self.now,
        )  # fmt: skip
        for _ in range(20):
            self.dispatcher.run_once()

    def append(self, lane: str, count: int) -> None:
        for _ in range(count):
            self.kafka.append(partition_of(lane, 2), lane.encode(), b"x")

    def rounds(self, count: int, *, live: bool) -> None:
        """So many rounds, before each of them a record of who is up to date."""
        for _ in range(count):
            if live:
                self.append(LIVE, 1)
            self.dispatcher.run_once()
            self.now += ROUND


@pytest.fixture
def bench() -> Bench:
    assert partition_of(BUSY, 2) != partition_of(LIVE, 2) == partition_of(AGAIN, 2)
    return Bench()


def require_slices(took: list[tuple[float, int]]) -> None:
    """Each took as long as a slice does, and after each there was three times as long a rest."""
    assert len(took) > 5
    assert all(count == SLICE for _, count in took)
    assert all(then - now >= 3.9 * SLICE / 1000 for (now, _), (then, _) in pairwise(took))


def test_a_backlog_comes_in_slices_and_rests_after_each_while_others_are_up_to_date(bench: Bench) -> None:
    # Mutants: most() that is always None; end() that sets no rest; a dispatcher that pauses nobody who rests.
    bench.rounds(1, live=True)
    bench.append(BUSY, 10 * PIECE)
    bench.rounds(100, live=True)
    require_slices(bench.store.got[BUSY])
    assert sum(count for _, count in bench.store.got[LIVE]) == 101


def test_a_poll_waits_for_its_answer_however_short_the_rest_is(bench: Bench) -> None:
    # Others would be read a round late. Mutant: it waits for what is left of a rest.
    bench.rounds(1, live=True)
    bench.append(BUSY, 10 * PIECE)
    waits = []
    for _ in range(100):
        bench.rounds(1, live=True)
        waits.append(bench.member.waited)
    assert min(waits) == GLANCE
    assert len({wait for wait in waits if wait > GLANCE}) > 5


def test_whoever_has_just_been_given_partitions_takes_others_for_up_to_date(bench: Bench) -> None:
    # Mutant: reassigned() that waits until one of them has brought something.
    for number in (0, 1):
        bench.kafka.give(number, bench.member)
    bench.append(BUSY, 4 * PIECE)
    bench.rounds(30, live=False)
    assert max(count for _, count in bench.store.got[BUSY]) <= 2 * SLICE


def test_a_backlog_that_nobody_waits_beside_comes_whole(bench: Bench) -> None:
    # Mutants: most() that never forgets who was up to date; end() that rests beside nobody.
    bench.append(BUSY, 10 * PIECE)
    bench.rounds(10, live=False)
    assert [count for _, count in bench.store.got[BUSY]] == [PIECE] * 10


def test_the_end_of_a_backlog_is_nobody_to_yield_to() -> None:
    # Draining all partitions would take twice as long. Mutants: whoever has no backlog is up to date; whoever has caught up is at once.
    yielding = Yielding(behind=10, least=100)

    def yields(left: Mapping[int, int], now: float) -> bool:
        yielding.polled(left, now)
        yielding.begin(now)
        return yielding.most is not None

    assert not yields({0: 100, 1: 100}, 1.0)
    assert not yields({1: 9}, 2.0)
    assert not yields({1: 2}, 3.9)
    assert not yields({0: 90}, 4.1)
    assert yields({0: 80, 1: 2}, 4.2)
    assert yields({0: 70, 1: 3}, 4.3)
    assert not yields({0: 60}, 5.3)


def test_slices_are_as_long_as_work_on_them_should_take(bench: Bench) -> None:
    # Mutant: slices of the least length always.
    bench.store.seconds = 0.0001
    bench.rounds(1, live=True)
    bench.append(BUSY, 100 * PIECE)
    bench.rounds(200, live=True)
    assert max(count for _, count in bench.store.got[BUSY]) == PIECE


def test_what_cursors_read_again_yields_too(bench: Bench) -> None:
    # Mutants: _feed() that reads while backlogs rest; cursors that are not told how much to bring.
    bench.append(BUSY, 4 * PIECE)
    bench.rounds(10, live=False)
    bench.store.got[BUSY].clear()
    bench.books.open[1] = Request(1, partition_of(BUSY, 2), BUSY, "rewind", "to see it again", 0)
    bench.now += 2.0  # requests are looked for now and then
    bench.rounds(400, live=True)
    require_slices(bench.store.got[BUSY])
    assert sum(count for _, count in bench.store.got[BUSY]) == 4 * PIECE
    assert sum(count for _, count in bench.store.got[LIVE]) == 400


def test_what_cursors_read_again_does_not_wait_for_new_records(bench: Bench) -> None:
    # Mutants: a poll waits as long as ever while cursors read; it never waits so long any more.
    longest = bench.member.waited
    bench.append(AGAIN, 10 * PIECE)
    bench.rounds(20, live=False)
    bench.books.open[1] = Request(1, partition_of(AGAIN, 2), AGAIN, "rewind", "to see it again", 0)
    waits = []
    while len(bench.store.got[AGAIN]) < 20:
        bench.rounds(1, live=False)
        waits.append(bench.member.waited)
    assert waits.count(min(waits)) >= 9
    assert min(waits) < longest / 5
    bench.rounds(20, live=False)
    assert bench.member.waited == longest


def test_a_backlog_and_what_cursors_read_again_elsewhere_take_turns(bench: Bench) -> None:
    # Mutants: cursors that read while a backlog rests: their work is its next rest; a rest that is longer each time.
    bench.append(AGAIN, 20 * PIECE)
    bench.rounds(40, live=False)
    bench.books.open[1] = Request(1, partition_of(AGAIN, 2), AGAIN, "rewind", "to see it again", 0)
    bench.append(BUSY, 20 * PIECE)
    bench.now += 2.0
    bench.rounds(800, live=True)
    assert len(bench.store.got[BUSY]) > 10
    assert len(bench.store.got[AGAIN]) > 20 + 10


def test_several_backlogs_share_a_slice() -> None:
    # Mutant: a slice of each.
    yielding = Yielding(behind=10, least=100)
    yielding.polled({0: 20, 1: 20, 2: 0}, 1.0)
    yielding.begin(1.1)
    assert (yielding.most, yielding.resting) == (50, frozenset())
    yielding.polled({0: 20, 1: 20}, 1.1)
    yielding.end(1.2)
    yielding.begin(1.25)
    assert yielding.resting == {0, 1}
    assert yielding.rest == pytest.approx(0.25)


def test_many_backlogs_do_not_cut_a_flood_elsewhere() -> None:
    # What is taken of a partition bounds those without a backlog too. Mutant: a quarter of the least slice, and less.
    yielding = Yielding(behind=10, least=90)
    yielding.polled({**dict.fromkeys(range(9), 20), 9: 0}, 1.0)
    yielding.begin(1.1)
    assert yielding.most == 30


def test_waiting_for_records_is_no_work() -> None:
    # Mutant: the work of a round that begins before the poll.
    yielding = Yielding(behind=10, least=100)
    yielding.begin(1.0)
    yielding.polled({0: 20, 1: 0}, 1.1)
    yielding.end(1.11)
    yielding.begin(1.11)
    assert yielding.rest == pytest.approx(0.03)


def test_a_backlog_that_does_not_become_shorter_rests_less_and_less() -> None:
    # Mutants: rests that never change; those that never become longer again.
    yielding, rests = Yielding(behind=10, least=100), []
    for second, left in enumerate([900, 800, 800, 900, 900, 950, 950, 950, 940, 930, 920, 910, 900]):
        yielding.begin(float(second))
        yielding.polled({0: left, 1: 0}, float(second))
        yielding.end(second + 0.01)
        yielding.begin(second + 0.01)
        rests.append(round(100 * yielding.rest, 3))
    assert rests == [3.0, 3.0, 1.5, 0.75, 0.375, 0.0, 0.0, 0.0, 0.375, 0.75, 1.5, 3.0, 3.0]


def test_a_backlog_that_hardly_becomes_shorter_rests_less_too() -> None:
    # Beside a flood that came into arrears it would last for long. Mutant: any record less is enough.
    yielding, rests = Yielding(behind=10, least=100), []
    for second, left in enumerate([900, 899, 898, 896]):
        yielding.begin(float(second))
        yielding.polled({0: left, 1: 0}, float(second))
        yielding.end(second + 0.01)
        yielding.begin(second + 0.01)
        rests.append(round(100 * yielding.rest, 3))
    assert rests == [3.0, 1.5, 0.75, 1.5]
