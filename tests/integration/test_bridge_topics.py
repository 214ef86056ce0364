"""What a consumer reads besides changes: rows of snapshots, sweeps, domain events alone."""

import signal

import pytest

from devstack.process import wait_until
from pipeline.bridge import progress
from pipeline.bridge.client_settings import READING
from pipeline.cli import status
from pipeline.cli.bridge import SNAPSHOT_BYTES
from pipeline.consumer import Outcome
from pipeline.control import rejected, sweeps
from pipeline.domain.routing import partition_of
from pipeline.lanes.claim import Finished
from tests.integration.bridged import MERCHANTS, PARTITIONS, Bridged

pytestmark = pytest.mark.integration
FETCH = READING["fetch_max_bytes"]
LOST = (partition_of("1", PARTITIONS) + 1) % PARTITIONS


def test_rows_of_snapshots_travel_in_lanes_of_their_own(bridged: Bridged) -> None:
    bridged.produce(2)
    for merchant in MERCHANTS:
        bridged.send_row(merchant, b"row")
    bridged.send_row("1", b"")
    bridged.producer.send(bridged.settings.snapshots.topic, key=b"1", value=b"lost", partition=LOST)
    bridged.producer.flush(10)
    with bridged.bridge():
        lanes = [f"s.{merchant}" for merchant in MERCHANTS]
        assert wait_until(lambda: sum(bridged.store.lengths(lanes).values()) == len(lanes) + 1, 40)
        assert wait_until(lambda: sum(bridged.store.lengths(MERCHANTS).values()) == 40, 40)
        claim = bridged.store.step().claim
        assert claim is not None
        assert not any(lane.snapshot for lane in claim.lanes)
        bridged.store.release(claim.token)
        bridged.accept_until_committed()
    (event,) = rejected.listed(bridged.database, "audit")
    assert (event.topic, event.partition) == (bridged.settings.snapshots.topic, LOST)


def test_a_snapshot_that_nobody_takes_leaves_room_and_way_for_changes(bridged: Bridged) -> None:
    # Mutant: no budget for rows: Redis takes all of them.
    size, rows = 900_000, 100
    for number in range(rows):
        bridged.send_row(MERCHANTS[number % len(MERCHANTS)], b"x" * size)
    bridged.producer.flush(30)
    lanes = [f"s.{merchant}" for merchant in MERCHANTS]
    with bridged.bridge():
        assert wait_until(lambda: bridged.metrics().get("detached_lanes", 0) > 0, 60, 0.2)
        bridged.produce(1)
        assert wait_until(lambda: sum(bridged.store.lengths(MERCHANTS).values()) == len(MERCHANTS), 20)
        held = sum(bridged.store.lengths(lanes).values())
        assert held * size < SNAPSHOT_BYTES + 2 * FETCH
        assert wait_until(lambda: bridged.metrics()["lag"] == len(MERCHANTS), 20, 0.2)
        assert len(bridged.accept_until_committed()) >= rows + len(MERCHANTS)


def test_a_sweep_is_passed_in_every_partition_once_all_before_it_is_accepted(bridged: Bridged) -> None:
    # Mutant: _pass() with all sweeps that were read.
    bridged.produce(3)
    bridged.sweep("one")
    with bridged.bridge():
        assert wait_until(lambda: sum(bridged.store.lengths(MERCHANTS).values()) == 60, 40)
        empty = {("one", bridged.settings.snapshots.topic, number) for number in range(PARTITIONS)}
        assert wait_until(lambda: set(bridged.passages()) == empty, 40)
        bridged.accept_until_committed()
    before = {
        partition: 3 * sum(partition_of(merchant, PARTITIONS) == partition for merchant in MERCHANTS)
        for partition in range(PARTITIONS)
    }
    passed = bridged.passages()
    assert len(passed) == 2 * PARTITIONS
    assert {p: passed["one", bridged.settings.datastream.topic, p] for p in range(PARTITIONS)} == before
    assert rejected.listed(bridged.database, "audit") == []


# Mutant: a passage that is inserted without ON CONFLICT.
@pytest.mark.parametrize(("point", "known"), [("bridge.passing", False), ("bridge.passed", True)])
def test_a_bridge_killed_while_it_passes_a_sweep_passes_it_again(
    bridged: Bridged, point: str, known: bool
) -> None:
    bridged.sweep("one")
    with bridged.bridge(PIPELINE_FAILPOINTS=point) as killed:
        assert killed.wait(60) == -signal.SIGKILL
    assert bool(bridged.passages()) is known
    with bridged.bridge():
        bridged.accept_until_committed()
    assert set(bridged.passages()) == {
        ("one", topic, partition)
        for topic in (bridged.settings.datastream.topic, bridged.settings.snapshots.topic)
        for partition in range(PARTITIONS)
    }


def test_a_consumer_that_knew_no_snapshots_begins_their_topic_at_its_beginning(bridged: Bridged) -> None:
    # Mutants: the consumer's own `start` used for a topic that joins later; runs of sweeps kept (rows before them stay).
    bridged.configure("snapshot = true", 'snapshot = false\n        start = "latest"')
    bridged.send_row("1", b"row")
    bridged.produce(1)
    with bridged.bridge():
        assert wait_until(lambda: len(progress.lag(bridged.settings, "audit")) == PARTITIONS, 20)
        assert wait_until(
            lambda: (
                None not in {committed for committed, _ in progress.lag(bridged.settings, "audit").values()}
            ),
            20,
        )
        bridged.sweep("one")
        bridged.accept_until_committed()
    with bridged.database.transaction() as connection:
        connection.execute("INSERT INTO sweep_runs (consumer, sweep, rows) VALUES ('audit', 'one', 0)")
    bridged.configure("snapshot = false", "snapshot = true")
    with bridged.bridge():
        assert [merchant for merchant, _ in bridged.accept_until_committed()] == ["1"]
    topics = bridged.settings.topics_of("audit")
    assert [order.id for order in sweeps.due(bridged.database, "audit", topics)] == ["one"]


def test_a_bridge_that_knows_no_snapshots_must_end_before_one_that_does(bridged: Bridged) -> None:
    bridged.configure("snapshot = true", "snapshot = false")
    bridged.produce(1)
    with bridged.bridge():
        bridged.accept_until_committed()
        bridged.configure("snapshot = false", "snapshot = true")
        with bridged.bridge() as refused:
            assert refused.wait(40) == 1
            assert refused.stderr is not None
            assert "stop this consumer's bridges of the earlier release first" in refused.stderr.read()
    bridged.send_row("1", b"row")
    bridged.produce(1)
    with bridged.bridge():
        assert len(bridged.accept_until_committed()) == len(MERCHANTS) + 1


def test_status_tells_changes_and_rows_of_snapshots_apart(bridged: Bridged) -> None:
    # Mutants: one sum; or the partition of a failing lane numbered through.
    bridged.produce(1)
    with bridged.bridge():
        bridged.accept_until_committed()
        bridged.send_row("1", b"row")
        bridged.produce(2)
        assert wait_until(lambda: sum(bridged.store.lengths([*MERCHANTS, "s.1"]).values()) == 41, 40)
        changes = bridged.store.step().claim
        assert changes is not None
        rows = bridged.store.step(claim=True).claim
        assert rows is not None
        bridged.store.step([Finished(rows, [Outcome("1", 0, "retry", 60_000, "no")])], claim=False)
    (state,) = status._consumers_of(bridged.settings, bridged.database, "audit")
    assert (state.lag, state.snapshot_lag) == (40, 1)
    (lane,) = state.lanes.failing
    assert (lane.name, lane.partition) == ("s.1", partition_of("1", PARTITIONS))


def test_a_consumer_never_changes_its_stream(bridged: Bridged) -> None:
    # Mutant: without the look for another start, lanes would take the other topic's offsets for their own.
    bridged.produce(1)
    with bridged.bridge():
        bridged.accept_until_committed()
    bridged.configure("snapshot = true", 'topic = "eventstream"')
    with bridged.bridge() as refused:
        assert refused.wait(40) == 1
        assert refused.stderr is not None
        assert "a consumer's topic never changes" in refused.stderr.read()
