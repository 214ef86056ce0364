"""One bridge's copier, on the real Kafka, control database and S3."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from pipeline.bridge.client_settings import READING
from pipeline.bridge.copies import Copies, covered
from pipeline.bridge.copying import Copier
from pipeline.bridge.group_view import GroupView
from pipeline.bridge.reread import TopicRereader
from pipeline.bridge.topics import Topics
from pipeline.control import detached
from pipeline.control.database import ControlDatabase, migrate
from pipeline.control.fences import Hold
from pipeline.errors import FencedError
from pipeline.ports import Detachment
from pipeline.storage import Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.integration

DAY = 24 * 3600.0
AT_ONCE = timedelta(0)


@dataclass
class Bench:
    """A partition of a bridge that does nothing but copy; retention is seven days."""

    bootstrap: str
    topics: Topics
    database: ControlDatabase
    producer: KafkaProducer
    copies: Copies
    fence: int = 0
    held: dict[int, int] = field(default_factory=dict)
    days: float = 0.0

    @property
    def topic(self) -> str:
        return self.topics.names[0]

    def take_over(self) -> None:
        """As a bridge does."""
        found = detached.take_over(self.database, "audit", [(self.topic, 0)])
        self.fence = self.held[0] = found[self.topic, 0].tenure.fence

    def hold(self) -> Hold:
        return Hold("audit", self.topic, 0, self.fence)

    def detach(self, *lanes: str, first: int = 0) -> None:
        rows = [Detachment(lane, first, "paused", "a test") for lane in lanes]
        detached.detach(self.database, self.hold(), rows)

    def send(self, count: int, *merchants: str, size: int = 10) -> None:
        """Records published `days` after the first ones, which are 5 days old, of merchants in turn."""
        published = round((time.time() - 5 * DAY + self.days * DAY) * 1000)
        for number in range(count):
            key = merchants[number % len(merchants)].encode()
            self.producer.send(self.topic, key=key, value=b"x" * size, timestamp_ms=published)
        self.producer.flush(10)

    def copier(self, later: float = 0.0, chunk_bytes: int = 4096) -> Copier:
        """Looks `later` days from now."""
        return Copier(
            self.copies,
            TopicRereader(
                self.bootstrap, self.topics, options={**READING, "max_partition_fetch_bytes": 2000}
            ),
            times=lambda: closing(GroupView(self.bootstrap, self.topics)),
            retention=lambda: {0: 7 * DAY},
            fences=lambda: self.held,
            chunk_bytes=chunk_bytes,
            now=lambda: time.time() + later * DAY,
        )

    def run(self, later: float = 0.0) -> Copier:
        copier = self.copier(later)
        try:
            copier.run_once()
        finally:
            copier._reader.close()
        return copier

    def offsets(self, lane: str) -> list[int]:
        """What can be read of a lane's copies."""
        found = self.copies.listed(0, [lane])
        keys = dict.fromkeys(copy.object for copy in found if copy.object is not None)
        records = [record for key in keys for record in self.copies.load(key)]
        return sorted({record.offset for record in records if record.key == lane.encode()})


@pytest.fixture
def bench(
    kafka_bootstrap: str,
    kafka_topic: Callable[..., str],
    control_url: str,
    s3_prefix: str,
    variables: Mapping[str, str],
) -> Iterator[Bench]:
    topics = Topics((kafka_topic(1),), 1)
    database = ControlDatabase(control_url)
    migrate(database)
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all", batch_size=2000)
    copies = Copies(database, lambda: Bucket(variables["S3_BUCKET"]), s3_prefix.rstrip("/"), "audit", topics)
    bench = Bench(kafka_bootstrap, topics, database, producer, copies)
    bench.take_over()
    yield bench
    producer.close()
    database.close()


def keys(s3_client: S3Client, bucket: str, prefix: str) -> list[str]:
    found = s3_client.list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for entry in found.get("Contents", [])]


def test_lanes_are_copied_in_pieces_and_go_on_where_the_last_pass_ended(bench: Bench) -> None:
    # Mutants: each pass begins at the row's first offset; or what has no records is not covered; or nothing is dropped
    # beyond a quarter of the retention, and each look copies a little.
    bench.detach("1", "2", "3")
    bench.send(300, "1", "2", size=100)
    bench.days = 4.0
    bench.send(10, "1")
    bench.run()
    assert bench.offsets("1") == list(range(0, 300, 2))
    assert bench.offsets("2") == list(range(1, 300, 2))
    assert len({copy.object for copy in bench.copies.listed(0, ["1", "2"])}) > 3
    assert [(copy.first, copy.end, copy.object) for copy in bench.copies.listed(0, ["3"])] == [(0, 300, None)]
    before = bench.copies.listed(0, ["1", "2", "3"])
    bench.run()
    assert bench.copies.listed(0, ["1", "2", "3"]) == before
    bench.run(later=4)
    assert bench.offsets("1") == [*range(0, 300, 2), *range(300, 310)]
    assert [(copy.first, copy.end) for copy in bench.copies.listed(0, ["3"])] == [(0, 310)]
    for lane in ("1", "2", "3"):
        assert covered(bench.copies.listed(0, [lane]), 0) == 310


def test_copies_go_with_the_row_and_their_objects_after_them(
    bench: Bench, s3_client: S3Client, s3_prefix: str, variables: Mapping[str, str]
) -> None:
    # Mutants: objects that other lanes have something in are deleted too; or none ever is.
    bench.detach("1", "2")
    bench.send(40, "1", "2")
    bench.run()
    assert len(keys(s3_client, variables["S3_BUCKET"], s3_prefix)) == 1
    detached.close(bench.database, bench.hold(), ["1"])
    assert bench.copies.listed(0, ["1"]) == []
    assert bench.copies.collect([0], AT_ONCE) == 0
    detached.close(bench.database, bench.hold(), ["2"])
    assert bench.copies.collect([0]) == 0
    assert bench.copies.collect([0], AT_ONCE) == 1
    assert keys(s3_client, variables["S3_BUCKET"], s3_prefix) == []


def test_who_has_lost_the_partition_writes_nothing_about_it(bench: Bench) -> None:
    # Mutant: announce() without the fence.
    bench.detach("1")
    bench.send(10, "1")
    stale = dict(bench.held)
    bench.take_over()
    bench.held = stale
    with pytest.raises(FencedError):
        bench.run()
    with bench.database.transaction() as connection:
        assert connection.execute("SELECT key FROM copy_objects").fetchall() == []


def test_a_stopped_lane_whose_records_are_gone_says_so_in_its_row(
    bench: Bench, kafka_admin: KafkaAdminClient
) -> None:
    # Mutant: only what a cursor reads is ever found missing.
    bench.detach("1")
    bench.send(20, "1")
    kafka_admin.delete_records({TopicPartition(bench.topic, 0): 8})
    copier = bench.run()
    [row] = detached.rows(bench.database, "audit")
    assert row.reason.startswith("offsets 0 to 7 passed retention")
    assert row.state == "paused"
    assert copier.metrics()["lost_lanes"] == 1
    assert bench.offsets("1") == list(range(8, 20))
