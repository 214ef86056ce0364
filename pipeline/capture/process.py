"""The capture process: waits for its turn as the source's only relay, relays, and comes back after outages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import structlog

from pipeline import settings
from pipeline.capture.backlog import Backlog
from pipeline.capture.confluent import ConfluentProducer
from pipeline.capture.envelope import Envelopes
from pipeline.capture.identity import Identity
from pipeline.capture.kafka_python import KafkaPythonProducer
from pipeline.capture.lineage import RaisedError, check_still_ours, establish, raise_as_asked
from pipeline.capture.moving.keeping import restore
from pipeline.capture.outlet import Outlet
from pipeline.capture.progress import last_progress
from pipeline.capture.publisher import Producer, Publisher, StoppedError
from pipeline.capture.queue import Queue
from pipeline.capture.relay import Clock, Relay
from pipeline.capture.repairs import Repairs
from pipeline.capture.reread import Rereader
from pipeline.capture.session import Connection, connect, session
from pipeline.capture.snapshot import Snapshots
from pipeline.capture.snapshot_progress import SnapshotProgress
from pipeline.capture.topics import check_topics, topics_of
from pipeline.capture.watch import Bounds, Metrics, Watch
from pipeline.control import tables
from pipeline.control.database import ControlDatabase
from pipeline.domain.table import Table
from pipeline.errors import ConfigurationError, PermanentError, TransientError
from pipeline.kafka_security import KafkaSecurity

_STANDBY_SECONDS = 1.0
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Capture:
    """One source's capture process, until `stop` is set. `open_producer` is called anew for each session."""

    name: str
    url: str
    source: settings.Source
    deployment: settings.Deployment
    bootstrap_servers: str
    security: KafkaSecurity
    open_producer: Callable[[], Producer]
    database: ControlDatabase
    metrics: Metrics
    backlog: Backlog
    stop: threading.Event

    def run(self) -> None:
        """Relay until stopped. Outages of PostgreSQL are waited out; whatever Kafka loses ends the process (PublishError)."""
        watch, pauses = self._watch(), _pauses()
        while not self.stop.is_set():
            try:
                self._run_session(watch)
                pauses = _pauses()
            except StoppedError:
                return
            except RaisedError as error:
                structlog.get_logger().info("new session", reason=str(error))
            except TransientError as error:
                structlog.get_logger().warning("capture waits", reason=str(error))
                self.stop.wait(next(pauses))

    def _run_session(self, watch: Watch) -> None:
        with session(self.url) as connection:
            queue = Queue(connection)
            if not self._acquired(queue):
                return
            # Also while Kafka is away: that is when the queue grows.
            watch.look(queue)
            watch.look_closely(queue)
            self._require_topics()
            identity = self._identity(connection)
            restore(connection, self.database, self.name)
            known = self._tables()
            lint = partial(watch.lint, queue, [table.name for table in known])
            publisher = self._publisher()
            try:
                self._relay(self._ready(queue, publisher, watch, identity, known), lint)
            finally:
                publisher.close()

    def _watch(self) -> Watch:
        source = self.source
        bounds = Bounds(settings.seconds(source.alarm_lag), source.alarm_queue_bytes)
        return Watch(self.name, bounds, self.metrics)

    def _acquired(self, queue: Queue) -> bool:
        """Wait for the source's lock; False when stopped before it came."""
        self.metrics.standby = 1
        if not queue.acquire():
            structlog.get_logger().info("another relay is at work: standing by")
            while not queue.acquire():
                if self.stop.wait(_STANDBY_SECONDS):
                    return False
        self.metrics.standby = 0
        return True

    def _require_topics(self) -> None:
        problems = check_topics(self.bootstrap_servers, self.deployment, self.security)
        if problems:
            raise ConfigurationError(tuple(problems))

    def _identity(self, connection: Connection) -> Identity:
        published = last_progress(
            self.bootstrap_servers, self.deployment.progress.topic, self.name, self.security
        )
        identity = establish(connection, self.database, self.name, published)
        self.metrics.generation, self.metrics.timeline = identity.generation, identity.timeline or 0
        return identity

    def _publisher(self) -> Publisher:
        partitions = {topic.topic: topic.partitions for topic in topics_of(self.deployment)}
        return Publisher(self.open_producer(), partitions)

    def _tables(self) -> list[Table]:
        known = [table for table in tables.load(self.database) if table.source == self.name]
        if not known:
            raise PermanentError(
                f"no tables of {self.name} are known", hint=f"run: pipeline capture install {self.name}"
            )
        return known

    def _ready(
        self, queue: Queue, publisher: Publisher, watch: Watch, identity: Identity, known: list[Table]
    ) -> Relay:
        deployment, envelopes, stopping = self.deployment, Envelopes(self.name, known), self.stop.is_set
        outlet = Outlet(
            self.name,
            deployment.datastream.topic,
            deployment.eventstream.topic,
            deployment.snapshots.topic,
            deployment.progress.topic,
            identity.timeline or 0,
        )
        progress = SnapshotProgress(self.database, self.metrics)
        snapshots = Snapshots(
            self.database, known, queue, publisher, envelopes, outlet, self.backlog, progress, stopping
        )
        still_ours = partial(self._still_ours, queue.connection, identity)
        return Relay(
            queue,
            publisher,
            envelopes,
            snapshots,
            Repairs(queue.connection, self.database, self.name),
            Rereader(partial(connect, self.url), known),
            outlet,
            watch,
            self.metrics,
            still_ours,
            stopping,
            Clock(),
        )

    def _still_ours(self, connection: Connection, identity: Identity) -> None:
        asked = check_still_ours(self.database, identity)
        if asked is not None:
            raise_as_asked(connection, self.database, identity, asked)

    def _relay(self, relay: Relay, lint: Callable[[], None]) -> None:
        structlog.get_logger().info("relaying", source=self.name)
        pause = settings.seconds(self.source.poll_interval)
        while not self.stop.is_set():
            lint()
            began = time.monotonic()
            # Rounds keep a distance under load too, the half: ten events in one batch cost little more than one.
            distance = pause / 2 if relay.run_once() else pause
            self.stop.wait(max(0.0, began + distance - time.monotonic()))


def open_producer(
    source: str, deployment: settings.Deployment, bootstrap_servers: str, security: KafkaSecurity
) -> Producer:
    """The Kafka client that the deployment asks for."""
    kinds: dict[str, type[ConfluentProducer] | type[KafkaPythonProducer]] = {
        "confluent-kafka": ConfluentProducer,
        "kafka-python": KafkaPythonProducer,
    }
    return kinds[deployment.producer](
        bootstrap_servers, client_id=f"pipeline-capture-{source}", security=security
    )


def _pauses() -> Iterator[float]:
    """Seconds between attempts: doubling, up to five."""
    pause = 0.1
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE)
