"""What a round of a bridge puts off or puts first, so that records do not wait for more than they must."""

from collections.abc import Mapping, Sequence

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.dispatcher import Dispatcher
from pipeline.ports import Append, Appended, Committed, Tenure
from tests.fakes.books import MemoryBooks
from tests.fakes.kafka import MemoryKafka, MemoryMember
from tests.fakes.lane_store import MemoryLaneStore

LONG, SHORT = b"6", b"7"


class Noting(MemoryLaneStore):
    """A store that notes which lanes each call appended to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []

    def add(self, epoch: str, tenures: Mapping[int, Tenure], appends: Sequence[Append]) -> Sequence[Appended]:
        self.calls.append([append.lane for append in appends])
        return super().add(epoch, tenures, appends)


class Member(MemoryMember):
    """A member that counts its commits and how often it is asked for the ends."""

    slow = 0

    def ends(self, partitions: frozenset[int]) -> Mapping[int, int]:
        self.slow += 1
        return super().ends(partitions)

    def commit(self, positions: Mapping[int, Committed]) -> None:
        self.slow += 1
        super().commit(positions)


class Bench:
    """A bridge that holds the only partition."""

    def __init__(self) -> None:
        self.now = 100.0
        self.kafka = MemoryKafka(1)
        self.kafka.positions = {0: 0}
        self.member = Member(self.kafka)
        self.kafka.give(0, self.member)
        self.store = Noting()
        flow = Flow(lane_bytes=10**6, pending_bytes=10**6, snapshot_bytes=10**6, pressure=lambda: 0.0)
        self.dispatcher = Dispatcher(
            self.member, self.member, self.store, MemoryBooks(), [],
            partitions=1, flow=flow, clock=lambda: self.now,
        )  # fmt: skip
        for _ in range(3):
            self.dispatcher.run_once()
        self.store.calls.clear()

    def read(self, *keys: bytes) -> None:
        """A round that reads these records."""
        for key in keys:
            self.kafka.append(0, key, b"x")
        self.dispatcher.run_once()


def test_lanes_that_got_little_are_appended_to_before_a_long_run() -> None:
    # Mutant: add_short_first() with one call for all.
    bench = Bench()
    bench.read(*[LONG] * 11, SHORT)
    assert bench.store.calls == [["7"], ["6"]]
    bench.store.calls.clear()
    bench.read(LONG, SHORT)
    assert bench.store.calls == [["6", "7"]]


def test_a_round_with_records_does_one_of_the_slower_things_and_one_without_the_rest() -> None:
    # Mutants: a round with records does everything that is due; it does none of it.
    bench = Bench()
    bench.kafka.append(0, None, b"a record without key")  # set aside at once: a commit will be due
    bench.dispatcher.run_once()
    bench.now += 60.0
    before = bench.member.slow
    bench.read(SHORT)
    assert bench.member.slow - before <= 1
    bench.dispatcher.run_once()
    assert bench.member.slow - before == 2


def test_while_records_come_all_the_time_everything_is_done_in_turn() -> None:
    # Mutant: the first of the steps that are due, not the one that waits longest: the last ones are never done.
    bench = Bench()
    before = bench.member.slow
    for _ in range(30):
        bench.now += 0.9
        bench.read(SHORT)
    assert bench.member.slow > before
