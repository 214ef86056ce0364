"""The capture process: waits for its turn as the source's only relay, relays, and comes back after outages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from pipeline import settings
from pipeline.capture.envelope import Envelopes
from pipeline.capture.identity import check_identity
from pipeline.capture.publisher import Publisher, StoppedError
from pipeline.capture.queue import Queue
from pipeline.capture.relay import Clock, Metrics, Relay
from pipeline.capture.session import Connection, session
from pipeline.capture.snapshot import Snapshots
from pipeline.capture.topics import check_topic
from pipeline.control import tables
from pipeline.control.database import ControlDatabase
from pipeline.errors import ConfigurationError, PermanentError, TransientError

_STANDBY_SECONDS = 1.0
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Capture:
    """One source's capture process, until `stop` is set."""

    name: str
    url: str
    poll_seconds: float
    deployment: settings.Deployment
    bootstrap_servers: str
    database: ControlDatabase
    metrics: Metrics
    stop: threading.Event

    def run(self) -> None:
        """Relay until stopped. Outages of PostgreSQL are waited out; whatever Kafka loses ends the process (PublishError)."""
        pauses = _pauses()
        while not self.stop.is_set():
            try:
                self._run_session()
                pauses = _pauses()
            except StoppedError:
                return
            except TransientError as error:
                structlog.get_logger().warning("capture waits", reason=str(error))
                self.stop.wait(next(pauses))

    def _run_session(self) -> None:
        with session(self.url) as connection:
            queue = Queue(connection)
            if not self._acquired(queue):
                return
            publisher = self._publisher()
            try:
                self._relay(self._ready(connection, queue, publisher))
            finally:
                publisher.close()

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

    def _publisher(self) -> Publisher:
        problems = check_topic(self.bootstrap_servers, self.deployment)
        if problems:
            raise ConfigurationError(tuple(problems))
        topic = self.deployment.datastream
        client_id = f"pipeline-capture-{self.name}"
        return Publisher(self.bootstrap_servers, topic.topic, topic.partitions, client_id=client_id)

    def _ready(self, connection: Connection, queue: Queue, publisher: Publisher) -> Relay:
        check_identity(connection, self.database, self.name)
        known = [table for table in tables.load(self.database) if table.source == self.name]
        if not known:
            raise PermanentError(
                f"no tables of {self.name} are known", hint=f"run: pipeline capture install {self.name}"
            )
        envelopes = Envelopes(self.name, known)
        stopping = self.stop.is_set
        snapshots = Snapshots(self.database, self.name, known, queue, publisher, envelopes, stopping)
        return Relay(queue, publisher, envelopes, snapshots, self.metrics, stopping, Clock())

    def _relay(self, relay: Relay) -> None:
        structlog.get_logger().info("relaying", source=self.name)
        # A poll's distance is kept under load too: ten events in one batch cost little more than one.
        while not self.stop.is_set():
            next_at = time.monotonic() + self.poll_seconds
            relay.run_once()
            self.stop.wait(max(0.0, next_at - time.monotonic()))


def _pauses() -> Iterator[float]:
    """Seconds between attempts: doubling, up to five."""
    pause = 0.1
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE)
