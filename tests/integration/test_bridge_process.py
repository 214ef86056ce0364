"""`pipeline bridge` as a process, on the real Kafka, Redis and control database."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from redis import Redis

from devstack.process import wait_until
from pipeline.bridge import progress
from pipeline.consumer import Outcome
from pipeline.control import rejected
from pipeline.control.database import ControlDatabase, migrate
from pipeline.domain.routing import partition_of
from pipeline.lanes.claim import Finished, TurnLimits
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.settings import Settings, load
from tests.fakes.turns import event

pytestmark = pytest.mark.integration
PARTITIONS = 3
MERCHANTS = [str(number) for number in range(1, 21)]
PIPELINE = Path(sys.executable).with_name("pipeline")


@dataclass(slots=True)
class Place:
    """One deployment of its own, with a consumer whose sink is this test."""

    directory: Path
    variables: Mapping[str, str]
    settings: Settings
    database: ControlDatabase
    producer: KafkaProducer
    redis: Redis
    store: RedisLaneStore

    def produce(self, count: int) -> None:
        """`count` records of each merchant."""
        for number in range(count):
            for merchant in MERCHANTS:
                partition = partition_of(merchant, PARTITIONS)
                self.send(partition, merchant.encode(), f"{merchant}:{number}".encode())
        self.producer.flush(10)

    def send(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        self.producer.send(self.settings.datastream.topic, key=key, value=value, partition=partition)

    @contextmanager
    def bridge(self, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """A bridge process, told to end and required to leave within ten seconds if it still runs."""
        process = subprocess.Popen(
            [PIPELINE, "bridge", "audit"],
            cwd=self.directory,
            env={**os.environ, **self.variables, **variables},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
        finally:
            process.kill()
            _, said = process.communicate()
            print(said)  # shown when the test fails

    def accept(self) -> list[tuple[str, int]]:
        """Take everything out of the lanes: the first time each event is seen, in order."""
        delivered: list[tuple[str, int]] = []
        while (claim := self.store.step().claim) is not None:
            delivered += [(lane.merchant, entry.offset) for lane in claim.lanes for entry in lane.entries]
            done = [Outcome(lane.merchant, len(lane.entries), "done") for lane in claim.lanes]
            self.store.step([Finished(claim, done)], claim=False)
        return delivered

    def accept_until_committed(self) -> list[tuple[str, int]]:
        """Accept until the bridge has committed all that is on the topic."""
        delivered: list[tuple[str, int]] = []
        ends = progress.end_offsets(self.settings)

        def committed() -> bool:
            delivered.extend(self.accept())
            return progress.accepted(self.settings, "audit", ends)

        assert wait_until(committed, 60)
        return delivered


@pytest.fixture
def place(
    tmp_path: Path,
    variables: Mapping[str, str],
    kafka_bootstrap: str,
    kafka_topic: Callable[..., str],
    kafka_admin: KafkaAdminClient,
    redis_url: str,
    redis_namespace: str,
    control_url: str,
) -> Iterator[Place]:
    topic, name = kafka_topic(PARTITIONS), redis_namespace.rstrip(":")
    (tmp_path / "pipeline.toml").write_text(
        f"""
        [deployment]
        name = "{name}"
        datastream = {{ topic = "{topic}", partitions = {PARTITIONS} }}
        [sources]
        [consumers.audit]
        handler = "nowhere:handle"
        """
    )
    own = {**variables, "CONTROL_DATABASE_URL": control_url}
    settings = load(own, tmp_path)
    database = ControlDatabase(control_url)
    migrate(database)
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all")
    client = connect(redis_url)
    store = RedisLaneStore(client, namespace_of(name, "audit"), TurnLimits(group=50))
    yield Place(tmp_path, own, settings, database, producer, client, store)
    producer.close()
    client.close()
    database.close()
    kafka_admin.delete_groups([f"{name}-audit"])


def require_order(delivered: list[tuple[str, int]], count: int) -> None:
    """Every event of every merchant, first deliveries in offset order."""
    first = list(dict.fromkeys(delivered))
    for merchant in MERCHANTS:
        offsets = [offset for owner, offset in first if owner == merchant]
        assert len(offsets) == count
        assert offsets == sorted(offsets)


def test_records_become_lanes_and_are_committed_once_accepted(place: Place) -> None:
    place.produce(50)
    with place.bridge():
        assert wait_until(lambda: sum(place.store.lengths(MERCHANTS).values()) == 1000, 40)
        assert {committed for committed, _ in progress.lag(place.settings, "audit").values()} == {0}
        require_order(place.accept_until_committed(), 50)


@pytest.mark.parametrize(
    "point", ["bridge.polled", "bridge.appended", "bridge.committing", "bridge.committed"]
)
def test_a_bridge_killed_anywhere_loses_nothing(place: Place, point: str) -> None:
    # Mutant: committing the position instead of the watermark.
    place.produce(20)
    delivered: list[tuple[str, int]] = []

    def died() -> bool:
        delivered.extend(place.accept())
        return killed.poll() is not None

    with place.bridge(PIPELINE_FAILPOINTS=f"{point}:{3 if point == 'bridge.polled' else 1}") as killed:
        assert wait_until(died, 60)
        assert killed.returncode == -signal.SIGKILL
    place.produce(20)
    with place.bridge():
        delivered += place.accept_until_committed()
    require_order(delivered, 40)


def test_what_a_relay_published_twice_comes_once_although_the_bridge_dies(place: Place) -> None:
    # Mutants: nothing dropped; or the newest position saved, and the restarted bridge drops what it never delivered.
    merchant = MERCHANTS[0]

    def publish(numbers: range) -> None:
        partition = partition_of(merchant, PARTITIONS)
        for number in numbers:
            change = event(number, {"id": number}, merchant=merchant)
            place.send(partition, merchant.encode(), msgspec.json.encode(change))
        place.producer.flush(10)

    def committed() -> int:
        return max(at or 0 for at, _ in progress.lag(place.settings, "audit").values())

    delivered: list[tuple[str, int]] = []
    publish(range(1, 21))
    with place.bridge():
        assert wait_until(lambda: place.store.lengths([merchant])[merchant] == 20, 40)
        claim = place.store.step().claim
        assert claim is not None
        delivered += [(merchant, entry.offset) for entry in claim.lanes[0].entries[:5]]
        place.store.step([Finished(claim, [Outcome(merchant, 5, "done")])], claim=False)
        assert wait_until(lambda: committed() == 5, 20)
    for key in place.redis.scan_iter(match=f"{place.settings.deployment}:*", count=1000):
        place.redis.delete(key)
    publish(range(11, 26))
    with place.bridge():
        delivered += place.accept_until_committed()
    assert [offset for _, offset in dict.fromkeys(delivered)] == [*range(20), *range(30, 35)]


def test_an_emptied_store_is_refilled(place: Place) -> None:
    place.produce(20)
    with place.bridge():
        assert wait_until(lambda: sum(place.store.lengths(MERCHANTS).values()) == 400, 40)
        for key in place.redis.scan_iter(match=f"{place.settings.deployment}:*", count=1000):
            place.redis.delete(key)
        require_order(place.accept_until_committed(), 20)


def test_records_that_belong_to_no_lane_are_set_aside_and_hold_nothing_up(place: Place) -> None:
    strange = [(None, b"a"), (b"no merchant!", b"b"), (b"1", None)]
    home = partition_of("1", PARTITIONS)
    for key, value in strange:
        place.send(home, key, value)
    place.send((home + 1) % PARTITIONS, b"1", b"c")
    place.produce(5)
    with place.bridge():
        require_order(place.accept_until_committed(), 5)
    listed = {event.reason for event in rejected.listed(place.database, "audit")}
    assert listed == {
        "a record without key",
        "the key b'no merchant!' is no merchant id",
        "a record without value",
        f'merchant "1" belongs to partition {home}, not {(home + 1) % PARTITIONS}',
    }


def test_two_bridges_share_the_partitions_and_one_takes_over(place: Place) -> None:
    place.produce(20)
    with place.bridge() as first, place.bridge():
        delivered = place.accept_until_committed()
        first.kill()
        place.produce(20)
        delivered += place.accept_until_committed()
    require_order(delivered, 40)


def test_a_group_that_lost_its_offsets_is_refused_with_a_hint(
    place: Place, kafka_admin: KafkaAdminClient
) -> None:
    place.produce(1)
    with place.bridge():
        place.accept_until_committed()
    kafka_admin.delete_groups([f"{place.settings.deployment}-audit"])
    with place.bridge() as refused:
        assert refused.wait(40) == 1
        assert refused.stderr is not None
        assert "has started on" in (said := refused.stderr.read())
        assert "Traceback" not in said


def test_records_that_passed_retention_are_named_and_nothing_is_skipped_silently(
    place: Place, kafka_admin: KafkaAdminClient
) -> None:
    place.produce(1)
    with place.bridge():
        place.accept_until_committed()
    place.produce(3)
    ends = progress.end_offsets(place.settings)
    topic = place.settings.datastream.topic
    kafka_admin.delete_records({TopicPartition(topic, 0): ends[0]})
    with place.bridge() as refused:
        assert refused.wait(40) == 1
        assert refused.stderr is not None
        said = refused.stderr.read()
        assert f"to {ends[0] - 1} passed retention" in said
        assert "Traceback" not in said
    assert progress.lag(place.settings, "audit")[0][0] != ends[0]


def test_a_topic_with_another_number_of_partitions_is_refused(place: Place) -> None:
    text = (place.directory / "pipeline.toml").read_text()
    (place.directory / "pipeline.toml").write_text(text.replace("partitions = 3", "partitions = 4"))
    with place.bridge() as refused:
        assert refused.wait(40) == 1
        assert refused.stderr is not None
        assert "has 3 partitions, pipeline.toml says 4" in refused.stderr.read()
