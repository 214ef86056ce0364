"""Random histories of bridges and workers that die, stand still and are overtaken, on services that lose things.

Nothing is lost, first deliveries of a lane come in order, no committed offset and no sweep passes an event that nobody
accepted, no lane is claimed twice, no row of a snapshot is claimed while changes are due, and when the trouble ends
everything comes to rest. Each mechanism removed alone
is found. SOAK=1 tries twenty thousand histories instead of one thousand; always the same ones.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import ClassVar, get_args

import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pipeline.bridge.dispatcher import Dispatcher
from pipeline.bridge.offsets import Partition
from pipeline.lanes.claim import Finished
from pipeline.ports import Append, Appended, Tenure
from tests.fakes.lane_store import MemoryLaneStore
from tests.fakes.promises import Broken
from tests.fakes.wires import Trouble
from tests.fakes.world import (
    LANES,
    NUMBERS,
    WORKERS,
    Conduct,
    Damage,
    Kind,
    World,
)

HISTORIES, ROUNDS = 1000, 20 if os.environ.get("SOAK") else 1
_bridges, _workers = st.integers(0, 1), st.integers(0, WORKERS - 1)
_lanes = st.sampled_from(LANES)
_paces = st.sampled_from((0.2, 0.5, 0.9))


class CrashMachine(RuleBasedStateMachine):
    """One history. Classes below it lack a mechanism."""

    store: ClassVar[type[MemoryLaneStore]] = MemoryLaneStore
    dispatcher: ClassVar[type[Dispatcher]] = Dispatcher

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.store, self.dispatcher)
        self._random, self._pace = Random(0), (0.0, 0.0, 0.0)

    @initialize(seed=st.integers(0, 2**32 - 1), pace=st.tuples(_paces, _paces, _paces))
    def begin(self, seed: int, pace: tuple[float, float, float]) -> None:
        self._random, self._pace = Random(seed), pace

    @invariant()
    def ordinary_work(self) -> None:
        """Between two troubles the world goes on, at the pace of this history."""
        records, bridges, workers = (self._random.random() < pace for pace in self._pace)
        if records:
            self.world.append(self._random.choice(LANES), "event")
        if bridges:
            self.world.pass_time(self._random.choice((50, 300)))
            self.world.run_bridge(0)
            self.world.run_bridge(1)
        if workers:
            slot = self._random.randrange(WORKERS)
            self._random.choice((self.turn, self.world.claim, self.world.write, self.world.finish))(slot)

    @rule(lane=_lanes, count=st.integers(1, 4))
    def append(self, lane: str, count: int) -> None:
        for _ in range(count):
            self.world.append(lane, "event")

    @rule(lane=_lanes, kind=st.sampled_from(get_args(Kind)))
    def append_strange(self, lane: str, kind: Kind) -> None:
        self.world.append(lane, kind)

    @rule()
    def append_sweep(self) -> None:
        self.world.append_sweep()

    @rule(slot=_bridges, pause=st.sampled_from((0, 300, 600)))
    def run_bridge(self, slot: int, pause: int) -> None:
        self.world.pass_time(pause)
        self.world.run_bridge(slot)

    @rule(slot=_bridges, trouble=st.sampled_from(get_args(Trouble)), at=st.integers(0, 11))
    def run_troubled_bridge(self, slot: int, trouble: Trouble, at: int) -> None:
        self.world.pass_time(600)
        self.world.run_bridge(slot, trouble, at)

    @rule(slot=_workers)
    def turn(self, slot: int) -> None:
        self.world.claim(slot)
        self.world.write(slot)
        self.world.finish(slot)

    @rule(slot=_workers, reply_lost=st.booleans())
    def claim(self, slot: int, reply_lost: bool) -> None:
        self.world.claim(slot, reply_lost=reply_lost)

    @rule(slot=_workers, conduct=st.sampled_from(get_args(Conduct)), available=st.booleans())
    def write(self, slot: int, conduct: Conduct, available: bool) -> None:
        self.world.write(slot, conduct, available)

    @rule(slot=_workers, trouble=st.sampled_from((None, "late", "no answer", "reply lost")))
    def finish(self, slot: int, trouble: Trouble | None) -> None:
        self.world.finish(slot, trouble)

    @rule(zombie=_workers, step=st.integers(1, WORKERS - 1))
    def finish_after_the_lease(self, zombie: int, step: int) -> None:
        self.world.claim(zombie)
        self.world.pass_time(11_000)
        self.world.claim((zombie + step) % WORKERS)
        self.world.write(zombie)
        self.world.finish(zombie)

    @rule(seconds=st.sampled_from((1, 6, 11)))
    def pass_time(self, seconds: int) -> None:
        self.world.pass_time(seconds * 1000)

    @rule(slot=_bridges)
    def kill_bridge(self, slot: int) -> None:
        self.world.kill_bridge(slot)

    @rule(slot=_workers)
    def kill_worker(self, slot: int) -> None:
        self.world.kill_worker(slot)

    @rule(partition=st.sampled_from(NUMBERS), slot=_bridges)
    def rebalance(self, partition: int, slot: int) -> None:
        self.world.rebalance(partition, slot)

    @rule()
    def deliver_late(self) -> None:
        self.world.deliver_late()

    @rule(full=st.booleans())
    def fill_store(self, full: bool) -> None:
        self.world.store.full = full

    @rule()
    def lose_store(self) -> None:
        self.world.lose_store()

    @rule()
    def save_store(self) -> None:
        self.world.save_store()

    @rule()
    def restore_store(self) -> None:
        self.world.restore_store()

    @rule(kind=st.sampled_from(get_args(Damage)), lane=_lanes)
    def damage(self, kind: Damage, lane: str) -> None:
        self.world.damage(kind, lane)

    def teardown(self) -> None:
        self.world.settle()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


def explore(machine: type[CrashMachine], number: int = 0) -> None:
    """Try the histories of that round; raises at the first broken promise, without cutting it down."""
    run_state_machine_as_test(
        seed(number)(machine),
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_promise_holds_whatever_dies(number: int) -> None:
    class Round(CrashMachine):
        pass

    explore(Round, number)


class CommitsBeforeTheSink(Dispatcher):
    def _watermark(self, partition: Partition) -> int:
        return partition.position


class PassesSweepsAsItReads(Dispatcher):
    def _pass(self) -> None:
        self._record_sweeps([record for partition in self._held.values() for record in partition.sweeps])


class CommitsPastSweeps(Dispatcher):
    def _watermark(self, partition: Partition) -> int:
        partition.sweeps = []
        return super()._watermark(partition)


class NeverAsksSilentLanes(Dispatcher):
    def _check(self) -> None:
        return


class NoChain(MemoryLaneStore):
    def _add(self, append: Append, tenure: Tenure) -> Appended:
        return super()._add(replace(append, previous=None), tenure)


class NoToken(MemoryLaneStore):
    def _finish(self, finished: Finished, jitter: float) -> int:
        self.leases.setdefault(finished.claim.token, self.now)
        return super()._finish(finished, jitter)

    def _holds(self, name: str, token: int) -> bool:
        return name in self.lanes


class KindsTakeTurns(MemoryLaneStore):
    def _candidates(self, token: int, *, snapshots: bool) -> list[str]:
        return super()._candidates(token, snapshots=token % 3 == 0) if not snapshots else []


class NoLease(MemoryLaneStore):
    def _expire(self) -> None:
        return


WITHOUT: Sequence[tuple[str, type[MemoryLaneStore], type[Dispatcher]]] = [
    ("commit after the sink", MemoryLaneStore, CommitsBeforeTheSink),
    ("passing a sweep after the sink", MemoryLaneStore, PassesSweepsAsItReads),
    ("commit after passing", MemoryLaneStore, CommitsPastSweeps),
    ("changes before snapshots", KindsTakeTurns, Dispatcher),
    ("empty append", MemoryLaneStore, NeverAsksSilentLanes),
    ("chain", NoChain, Dispatcher),
    ("token", NoToken, Dispatcher),
    ("end of leases", NoLease, Dispatcher),
]


@pytest.mark.parametrize(("mechanism", "lanes", "bridge"), WITHOUT, ids=[name for name, _, _ in WITHOUT])
def test_a_missing_mechanism_is_found(
    mechanism: str, lanes: type[MemoryLaneStore], bridge: type[Dispatcher]
) -> None:
    class Mutant(CrashMachine):
        store = lanes
        dispatcher = bridge

    with pytest.raises(Broken):
        explore(Mutant)
