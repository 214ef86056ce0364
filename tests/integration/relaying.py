"""A relay driven by hand: its publisher, its loop and its snapshots, without the process around them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.capture.backlog import Backlog
from pipeline.capture.envelope import Envelopes
from pipeline.capture.kafka_python import KafkaPythonProducer
from pipeline.capture.outlet import Outlet
from pipeline.capture.publisher import Publisher
from pipeline.capture.queue import Queue
from pipeline.capture.relay import Clock, Relay
from pipeline.capture.repairs import Repairs
from pipeline.capture.reread import Rereader
from pipeline.capture.session import connect, session
from pipeline.capture.snapshot import Snapshots
from pipeline.capture.snapshot_progress import SnapshotProgress
from pipeline.capture.watch import Bounds, Metrics, Watch
from pipeline.control import snapshots
from pipeline.control.database import ControlDatabase
from pipeline.domain.event import Event, decode
from pipeline.domain.sweep import Sweep, decode_sweep
from pipeline.telemetry import ProcessState
from tests.integration.captured import NAME, Captured
from tests.integration.kafka_topic import read_topic


@dataclass(slots=True)
class Stage:
    """A relay that works while a test waits, and what it has published.

    `clock` is read once per event, `processes` are the heartbeats it sees; a test may replace both.
    """

    captured: Captured
    database: ControlDatabase
    queue: Queue
    work: Snapshots
    relay: Relay
    metrics: Metrics
    bootstrap: str
    topic: str
    clock: list[Callable[[], float]]
    processes: list[ProcessState] = field(default_factory=list)

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Relay until it holds."""
        assert wait_until(lambda: condition() or (self.relay.run_once() and condition()), 30, pause=0)

    def state(self, request: int) -> snapshots.Snapshot:
        """A request as the control database has it."""
        found = snapshots.load(self.database, request)
        assert found is not None
        return found

    def done(self, request: int) -> bool:
        """True when it is over."""
        return self.state(request).finished

    def carry_out(self, request: int) -> None:
        """Relay until the request is done."""
        self.run_until(lambda: self.done(request))
        assert self.state(request).status == "done", self.state(request).detail

    def rows(self) -> list[Event]:
        """What snapshots have published."""
        return self._decoded(".snapshot")

    def changes(self) -> list[Event]:
        """What else was published."""
        return self._decoded("")

    def sweeps(self) -> list[tuple[str, int, Sweep]]:
        """Every sweep's record: its topic's last word, its partition, and it."""
        return [
            (suffix, record.partition, sweep)
            for suffix in ("", ".snapshot")
            for record in self.records(suffix)
            if record.key is None and (sweep := decode_sweep(record.value)) is not None
        ]

    def records(self, suffix: str) -> list[Any]:
        """Every record of a topic beside `topic`, partition by partition."""
        return read_topic(self.bootstrap, self.topic + suffix)

    def _decoded(self, suffix: str) -> list[Event]:
        records = self.records(suffix)
        return [decode(one.value, one.key.decode()) for one in records if one.key is not None]


@contextmanager
def staged(
    captured: Captured,
    bootstrap: str,
    topic: str,
    database: ControlDatabase | None = None,
    partitions: int = 1,
) -> Iterator[Stage]:
    """The relay of source NAME, once it has the lock; `topic` is there with so many partitions."""
    clock: list[Callable[[], float]] = [lambda: 0.0]

    def now() -> float:
        return clock[0]()

    with _publishing(bootstrap, topic, partitions) as publisher, session(captured.source.url) as connection:
        queue, metrics, control = Queue(connection), Metrics(), database or captured.database
        outlet = Outlet(NAME, topic, f"{topic}.events", f"{topic}.snapshot", f"{topic}.progress", 1)
        processes: list[ProcessState] = []
        backlog = Backlog(lambda: list(processes), lambda: metrics.snapshot_rows, 200_000)
        envelopes = Envelopes(NAME, captured.tables)
        progress = SnapshotProgress(control, metrics)
        work = Snapshots(
            control, captured.tables, queue, publisher, envelopes, outlet, backlog, progress, lambda: False
        )
        assert queue.acquire()
        relay = Relay(
            queue,
            publisher,
            envelopes,
            work,
            Repairs(connection, control, NAME),
            Rereader(partial(connect, captured.source.url), captured.tables),
            outlet,
            Watch(NAME, Bounds(300.0, 1 << 30), metrics),
            metrics,
            lambda: None,
            lambda: False,
            Clock(wall=now),
        )
        yield Stage(captured, control, queue, work, relay, metrics, bootstrap, topic, clock, processes)
        backlog.close()


@contextmanager
def _publishing(bootstrap: str, topic: str, partitions: int) -> Iterator[Publisher]:
    """A publisher to `topic`, with topics of events, of snapshots and of progress beside it."""
    beside = {f"{topic}.{name}": partitions for name in ("events", "snapshot")} | {f"{topic}.progress": 1}
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    made = {name: {"num_partitions": count, "replication_factor": 1} for name, count in beside.items()}
    admin.create_topics(made, wait_for_metadata=True)
    publisher = Publisher(KafkaPythonProducer(bootstrap, client_id="test"), {topic: partitions, **beside})
    try:
        yield publisher
    finally:
        publisher.close()
        admin.delete_topics(list(beside))
        admin.close()
