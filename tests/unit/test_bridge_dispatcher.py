"""The bridge's loop, one trouble at a time."""

from collections.abc import Iterator

import pytest
import structlog

from pipeline.errors import PositionLostError
from tests.fakes.stream import number_of
from tests.fakes.wires import Trouble
from tests.fakes.world import World

M = "6"  # lives in partition 0 of two
ROWS = f"s.{M}"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


@pytest.fixture
def world() -> World:
    """Bridge 0 holds partition 0 of both topics, bridge 1 partition 1; nothing has happened yet."""
    return World(lane_bytes=100_000)


def rounds(world: World, count: int = 1, milliseconds: int = 0, slot: int = 0) -> None:
    for _ in range(count):
        world.pass_time(milliseconds)
        world.run_bridge(slot)


def troubled(world: World, slot: int, trouble: Trouble, call: str) -> None:
    world.arm(slot, trouble, call)
    world.run_bridge(slot)


def append(world: World, count: int) -> None:
    for _ in range(count):
        world.append(M, "event")


def turn(world: World) -> None:
    world.claim(0)
    world.write(0)
    world.finish(0)


def lane(world: World, name: str = M) -> list[int]:
    return [entry.offset for entry in world.store.lanes[name].entries]


def home(world: World) -> int:
    return next(partition for partition, log in world.kafka.logs.items() if log)


@pytest.fixture
def owner(world: World) -> int:
    """The bridge that holds the merchant's partition, with three events in the lane."""
    append(world, 3)
    slot = home(world) % 2
    rounds(world, 2, slot=slot)
    assert lane(world) == [0, 1, 2]
    return slot


def test_nothing_is_committed_before_the_sink_accepted_it(world: World, owner: int) -> None:
    rounds(world, 3, 600, owner)
    assert world.kafka.positions[home(world)] == 0
    turn(world)
    rounds(world, 2, 600, owner)
    assert world.kafka.positions[home(world)] == 3


def test_an_emptied_store_is_refilled_at_once_from_the_committed_offset(world: World, owner: int) -> None:
    # Mutant: acknowledged() and add() of the store without the epoch: nothing happens for ten seconds.
    world.lose_store()
    rounds(world, 4, 300, owner)
    assert lane(world) == [0, 1, 2]


def test_a_damaged_lane_is_refilled_without_traffic(world: World, owner: int) -> None:
    # Mutant: _check() that returns at once.
    world.damage("tail", M)
    rounds(world, 1, 9000, owner)
    assert lane(world) == [0, 1]
    rounds(world, 3, 600, owner)
    rounds(world, 3, 600, owner)
    assert lane(world) == [0, 1, 2]


def test_a_damaged_lane_does_not_get_back_what_was_accepted(world: World, owner: int) -> None:
    turn(world)
    append(world, 2)
    rounds(world, 1, 0, owner)
    world.damage("list", M)
    append(world, 1)
    rounds(world, 5, 100, owner)
    assert lane(world) == [3, 4, 5]


def test_acknowledgements_whose_reply_was_lost_are_asked_for_again(world: World, owner: int) -> None:
    turn(world)
    world.damage("news", M)
    rounds(world, 3, 600, owner)
    assert world.kafka.positions[home(world)] == 0
    rounds(world, 3, 10_000, owner)
    assert world.kafka.positions[home(world)] == 3


def test_a_full_store_keeps_what_was_read_and_polling_goes_on(world: World, owner: int) -> None:
    world.store.full = True
    append(world, 2)
    rounds(world, 5, 600, owner)
    assert lane(world) == [0, 1, 2]
    world.store.full = False
    rounds(world, 2, 3000, owner)
    assert lane(world) == [0, 1, 2, 3, 4]


def test_a_strange_record_is_set_aside_and_the_others_go_on(world: World, owner: int) -> None:
    # Mutant: _set_aside() that forgets without storing.
    world.append(M, "no value")
    append(world, 1)
    rounds(world, 2, 0, owner)
    assert world.stream.rejected == {(home(world), 3)}
    assert lane(world) == [0, 1, 2, 4]


def test_a_strange_record_that_cannot_be_set_aside_holds_the_watermark(world: World, owner: int) -> None:
    turn(world)
    rounds(world, 2, 600, owner)
    world.append(M, "no value")
    troubled(world, owner, "no answer", "set_aside")
    assert world.stream.rejected == set()
    troubled(world, owner, "no answer", "set_aside")
    assert world.kafka.positions[home(world)] == 3


def test_a_bridge_that_was_overtaken_appends_nothing(world: World, owner: int) -> None:
    # Mutant: a lane store that ignores fences.
    append(world, 1)

    def overtake() -> None:
        world.rebalance(home(world), 1 - owner)
        rounds(world, 3, 0, 1 - owner)

    world.bridges[owner].wire.overtake = overtake
    troubled(world, owner, "overtaken", "add")
    assert lane(world) == [0, 1, 2]
    rounds(world, 1, 0, 1 - owner)
    assert lane(world) == [0, 1, 2, 3]


def test_a_bridge_that_lost_the_partition_while_taking_it_over_reads_nothing(world: World) -> None:
    # Mutant: _take_over() without the commit that proves the fence.
    append(world, 3)
    slot = home(world) % 2
    troubled(world, slot, "overtaken", "committed")
    assert world.bridges[slot].dispatcher.metrics()["partitions"] == 0


def test_a_partition_without_committed_offset_is_refused(world: World) -> None:
    world.kafka.positions.clear()
    with pytest.raises(PositionLostError):
        world.run_bridge(0)


def test_a_revoked_partition_is_forgotten(world: World, owner: int) -> None:
    # Mutant: _reassign() that keeps what was revoked.
    world.rebalance(home(world), 1 - owner)
    rounds(world, 1, 0, owner)
    assert world.bridges[owner].dispatcher.metrics()["partitions"] == 1
    append(world, 1)
    rounds(world, 1, 0, owner)
    assert lane(world) == [0, 1, 2]
    rounds(world, 4, 0, 1 - owner)
    assert lane(world) == [0, 1, 2, 3]


def test_the_numbers_of_the_heartbeat(world: World, owner: int) -> None:
    metrics = world.bridges[owner].dispatcher.metrics()
    assert metrics["records"] == 3
    assert metrics["pending_lanes"] == 1
    assert metrics["partitions"] == 2
    assert metrics["resyncs"] == 0


def test_rows_of_snapshots_get_lanes_of_their_own(world: World, owner: int) -> None:
    world.append(ROWS, "event")
    append(world, 1)
    rounds(world, 2, 0, owner)
    assert (lane(world), lane(world, ROWS)) == ([0, 1, 2, 3], [0])


def test_lag_is_told_of_changes_and_of_snapshots_apart(world: World, owner: int) -> None:
    # Mutant: one sum over all partitions: a relay would hold its snapshots back for changes, or not at all.
    for _ in range(2):
        world.append(ROWS, "event")
    rounds(world, 2, 6000, owner)
    metrics = world.bridges[owner].dispatcher.metrics()
    assert (metrics["lag"], metrics["snapshot_lag"]) == (3, 2)


def test_a_sweep_is_passed_once_everything_before_it_is_accepted(world: World, owner: int) -> None:
    # Mutant: _pass() with all sweeps that were read.
    partition = home(world)
    world.append_sweep()
    append(world, 1)
    rounds(world, 2, 600, owner)
    assert (partition, 3) not in world.stream.passed
    turn(world)
    rounds(world, 2, 600, owner)
    assert (partition, 3) in world.stream.passed
    assert world.kafka.positions[partition] == 4


def test_a_sweep_waits_for_what_is_not_set_aside_yet(world: World) -> None:
    # Mutant: the smallest pending offset without what is not set aside.
    partition = number_of(M)
    rounds(world, 1, 0, partition)
    world.append(M, "no key")
    world.append_sweep()
    troubled(world, partition, "no answer", "set_aside")
    assert world.stream.rejected == set()
    assert (partition, 1) not in world.stream.passed
    rounds(world, 2, 3000, partition)
    assert world.stream.rejected == {(partition, 0)}
    assert (partition, 1) in world.stream.passed


@pytest.mark.parametrize("trouble", ["no answer", "reply lost"])
def test_nothing_passes_a_sweep_that_could_not_be_recorded(world: World, trouble: Trouble) -> None:
    # Mutant: _watermark() that leaves sweeps out.
    rounds(world, 1)
    world.append_sweep()
    world.pass_time(600)
    troubled(world, 0, trouble, "pass_sweeps")
    assert world.kafka.positions[0] == 0
    rounds(world, 2, 3000)
    assert (0, 0) in world.stream.passed
    assert world.kafka.positions[0] == 1


def test_a_record_without_key_that_is_no_sweep_is_set_aside(world: World) -> None:
    world.append(M, "no key")
    rounds(world, 2, 600, number_of(M))
    assert world.stream.rejected == {(number_of(M), 0)}
    assert world.stream.passed == set()
