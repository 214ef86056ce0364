"""`pipeline bridge` as a process, on the real Kafka, Redis and control database."""

import signal

import msgspec
import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.bridge import progress
from pipeline.consumer import Outcome
from pipeline.control import rejected
from pipeline.domain.routing import partition_of
from pipeline.lanes.claim import Finished
from tests.conftest import delete_groups
from tests.fakes.turns import event
from tests.integration.bridged import MERCHANTS, PARTITIONS, Bridged, require_order

pytestmark = pytest.mark.integration


def test_records_become_lanes_and_are_committed_once_accepted(bridged: Bridged) -> None:
    bridged.produce(50)
    with bridged.bridge():
        assert wait_until(lambda: sum(bridged.store.lengths(MERCHANTS).values()) == 1000, 40)
        assert {committed for committed, _ in progress.lag(bridged.settings, "audit").values()} == {0}
        require_order(bridged.accept_until_committed(), 50)


@pytest.mark.parametrize(
    "point", ["bridge.polled", "bridge.appended", "bridge.committing", "bridge.committed"]
)
def test_a_bridge_killed_anywhere_loses_nothing(bridged: Bridged, point: str) -> None:
    # Mutant: committing the position instead of the watermark.
    bridged.produce(20)
    delivered: list[tuple[str, int]] = []

    def died() -> bool:
        delivered.extend(bridged.accept())
        return killed.poll() is not None

    with bridged.bridge(PIPELINE_FAILPOINTS=f"{point}:{3 if point == 'bridge.polled' else 1}") as killed:
        assert wait_until(died, 60)
        assert killed.returncode == -signal.SIGKILL
    bridged.produce(20)
    with bridged.bridge():
        delivered += bridged.accept_until_committed()
    require_order(delivered, 40)


def test_what_a_relay_published_twice_comes_once_although_the_bridge_dies(bridged: Bridged) -> None:
    # Mutants: nothing dropped; or the newest position saved, and the restarted bridge drops what it never delivered.
    merchant = MERCHANTS[0]

    def publish(numbers: range) -> None:
        partition = partition_of(merchant, PARTITIONS)
        for number in numbers:
            change = event(number, {"id": number}, merchant=merchant)
            bridged.send(partition, merchant.encode(), msgspec.json.encode(change))
        bridged.producer.flush(10)

    def committed() -> int:
        return max(at or 0 for at, _ in progress.lag(bridged.settings, "audit").values())

    delivered: list[tuple[str, int]] = []
    publish(range(1, 21))
    with bridged.bridge():
        assert wait_until(lambda: bridged.store.lengths([merchant])[merchant] == 20, 40)
        claim = bridged.store.step().claim
        assert claim is not None
        delivered += [(merchant, entry.offset) for entry in claim.lanes[0].entries[:5]]
        bridged.store.step([Finished(claim, [Outcome(merchant, 5, "done")])], claim=False)
        assert wait_until(lambda: committed() == 5, 20)
    for key in bridged.redis.scan_iter(match=f"{bridged.settings.deployment}:*", count=1000):
        bridged.redis.delete(key)
    publish(range(11, 26))
    with bridged.bridge():
        delivered += bridged.accept_until_committed()
    assert [offset for _, offset in dict.fromkeys(delivered)] == [*range(20), *range(30, 35)]


def test_an_emptied_store_is_refilled(bridged: Bridged) -> None:
    bridged.produce(20)
    with bridged.bridge():
        assert wait_until(lambda: sum(bridged.store.lengths(MERCHANTS).values()) == 400, 40)
        for key in bridged.redis.scan_iter(match=f"{bridged.settings.deployment}:*", count=1000):
            bridged.redis.delete(key)
        require_order(bridged.accept_until_committed(), 20)


def test_records_that_belong_to_no_lane_are_set_aside_and_hold_nothing_up(bridged: Bridged) -> None:
    strange = [(None, b"a"), (b"no merchant!", b"b"), (b"1", None)]
    home = partition_of("1", PARTITIONS)
    for key, value in strange:
        bridged.send(home, key, value)
    bridged.send((home + 1) % PARTITIONS, b"1", b"c")
    bridged.produce(5)
    with bridged.bridge():
        require_order(bridged.accept_until_committed(), 5)
    listed = {event.reason for event in rejected.listed(bridged.database, "audit")}
    assert listed == {
        "a record without key",
        "the key b'no merchant!' is no merchant id",
        "a record without value",
        f'merchant "1" belongs to partition {home}, not {(home + 1) % PARTITIONS}',
    }


def test_two_bridges_share_the_partitions_and_one_takes_over(bridged: Bridged) -> None:
    bridged.produce(20)
    with bridged.bridge() as first, bridged.bridge():
        delivered = bridged.accept_until_committed()
        first.kill()
        bridged.produce(20)
        delivered += bridged.accept_until_committed()
    require_order(delivered, 40)


def test_a_group_that_lost_its_offsets_is_refused_with_a_hint(
    bridged: Bridged, kafka_admin: KafkaAdminClient
) -> None:
    bridged.produce(1)
    with bridged.bridge():
        bridged.accept_until_committed()
    delete_groups(kafka_admin, f"{bridged.settings.deployment}-audit")
    with bridged.bridge() as refused:
        assert refused.wait(40) == 1
        assert refused.stderr is not None
        assert "has started on" in (said := refused.stderr.read())
        assert "Traceback" not in said


def test_records_that_passed_retention_are_named_and_nothing_is_skipped_silently(
    bridged: Bridged, kafka_admin: KafkaAdminClient
) -> None:
    bridged.produce(1)
    with bridged.bridge():
        bridged.accept_until_committed()
    bridged.produce(3)
    ends = progress.end_offsets(bridged.settings, "audit")
    topic = bridged.settings.datastream.topic
    kafka_admin.delete_records({TopicPartition(topic, 0): ends[0]})
    with bridged.bridge() as refused:
        assert refused.wait(40) == 1
        assert refused.stderr is not None
        said = refused.stderr.read()
        assert f"to {ends[0] - 1} passed retention" in said
        assert "Traceback" not in said
    assert progress.lag(bridged.settings, "audit")[0][0] != ends[0]


def test_a_topic_with_another_number_of_partitions_is_refused(bridged: Bridged) -> None:
    bridged.configure("partitions = 3", "partitions = 4")
    with bridged.bridge() as refused:
        assert refused.wait(40) == 1
        assert refused.stderr is not None
        assert "has 3 partitions, pipeline.toml says 4" in refused.stderr.read()
