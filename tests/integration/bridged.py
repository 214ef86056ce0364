"""A deployment of its own with one consumer, ``audit``, whose sink is the test: for tests of the bridge as a process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from redis import Redis

from devstack.process import wait_until
from pipeline.bridge import progress
from pipeline.consumer import Outcome
from pipeline.control.database import ControlDatabase
from pipeline.domain.routing import partition_of
from pipeline.domain.sweep import Sweep, encode_sweep
from pipeline.lanes.claim import Finished
from pipeline.lanes.store import RedisLaneStore
from pipeline.settings import Settings, load
from pipeline.telemetry import heartbeats

PARTITIONS = 3
MERCHANTS = [str(number) for number in range(1, 21)]
PIPELINE = Path(sys.executable).with_name("pipeline")


@dataclass(slots=True)
class Bridged:
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

    def send_row(self, merchant: str, value: bytes) -> None:
        """A record in the topic of snapshot rows."""
        partition = partition_of(merchant, PARTITIONS)
        self.producer.send(
            self.settings.snapshots.topic, key=merchant.encode(), value=value, partition=partition
        )

    def sweep(self, id_: str) -> None:
        """A sweep in every partition of both topics."""
        value = encode_sweep(Sweep(1, "sweep", id_, "shop", "public.t", "t", None, "7", "snapshot"))
        for topic in (self.settings.datastream.topic, self.settings.snapshots.topic):
            for partition in range(PARTITIONS):
                self.producer.send(topic, value=value, partition=partition)
        self.producer.flush(10)

    def passages(self) -> dict[tuple[str, str, int], int]:
        """Where the consumer has passed which sweep: by id, topic and partition the record's offset."""
        with self.database.transaction() as connection:
            found = connection.execute(
                "SELECT sweep, topic, partition, record_offset FROM sweep_passages WHERE consumer = 'audit'"
            ).fetchall()
        return {(sweep, topic, partition): offset for sweep, topic, partition, offset in found}

    def metrics(self) -> Mapping[str, Any]:
        """What the bridge's last heartbeat said."""
        states = heartbeats(self.redis, self.settings.deployment)
        return next((state.metrics for state in states if state.process == "bridge-audit"), {})

    def configure(self, before: str, after: str) -> None:
        """Change pipeline.toml."""
        file = self.directory / "pipeline.toml"
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after))
        self.settings = load(self.variables, self.directory)

    @contextmanager
    def bridge(self, *options: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """A bridge process, told to end and required to leave within ten seconds if it still runs."""
        process = subprocess.Popen(
            [PIPELINE, "bridge", "audit", *options],
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
        ends = progress.end_offsets(self.settings, "audit")

        def committed() -> bool:
            delivered.extend(self.accept())
            return progress.accepted(self.settings, "audit", ends)

        assert wait_until(committed, 60)
        return delivered


def require_order(delivered: list[tuple[str, int]], count: int) -> None:
    """Every event of every merchant, first deliveries in offset order."""
    first = list(dict.fromkeys(delivered))
    for merchant in MERCHANTS:
        offsets = [offset for owner, offset in first if owner == merchant]
        assert len(offsets) == count
        assert offsets == sorted(offsets)
