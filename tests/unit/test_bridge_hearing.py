"""How often a bridge hears what sinks have accepted: of some partitions in each round."""

from collections.abc import Sequence

from pipeline.bridge.hearing import Hearing
from pipeline.bridge.holdings import Holdings
from pipeline.bridge.offsets import Partition
from pipeline.domain.routing import partition_of
from pipeline.ports import News, Tenure
from tests.fakes.kafka import MemoryRecord
from tests.fakes.lane_store import MemoryLaneStore

PARTITIONS = 10


class Asked(MemoryLaneStore):
    """A store that notes which partitions are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def acknowledged(self, epoch: str, partition: int, limit: int = 1000) -> Sequence[News]:
        self.asked.append(partition)
        return super().acknowledged(epoch, partition, limit)


class Bench:
    """Ten partitions, a lane with an event in each."""

    def __init__(self) -> None:
        self.now = 100.0
        self.store = Asked()
        self.holdings = Holdings(self.store, lambda: self.now)
        for number in range(PARTITIONS):
            held = self.holdings.partitions[number] = Partition(number, PARTITIONS, Tenure(1, 0), 0)
            held.receive([MemoryRecord(0, _merchant(number).encode(), b"x")], self.now, 1000)
            self.holdings.add(list(held.appends()))
        self.hearing = Hearing(self.holdings, every=1.0)

    def after(self, seconds: float) -> list[int]:
        """What is asked for then."""
        self.now += seconds
        self.store.asked.clear()
        self.hearing.some()
        return sorted(self.store.asked)


def _merchant(partition: int) -> str:
    return next(str(n) for n in range(1000) if partition_of(str(n), PARTITIONS) == partition)


def test_each_round_hears_of_as_many_partitions_as_its_time_is_worth() -> None:
    # Mutant: everything that is due is heard at once: ten calls in the first round, and none in those after it.
    bench = Bench()
    heard = [bench.after(0.1) for _ in range(10)]
    assert all(len(round_) <= 2 for round_ in heard)
    assert sorted(number for round_ in heard for number in round_) == list(range(PARTITIONS))


def test_no_partition_is_heard_of_before_its_time_and_all_are_after_a_long_round() -> None:
    # Mutant: the share alone decides: the same partitions are asked for again.
    bench = Bench()
    assert bench.after(5.0) == list(range(PARTITIONS))
    assert bench.after(0.9) == []
    assert len(bench.after(0.1)) == 1
    assert len(bench.after(5.0)) == PARTITIONS


def test_the_last_words_hear_everything() -> None:
    bench = Bench()
    bench.hearing.all()
    assert sorted(bench.store.asked) == list(range(PARTITIONS))
