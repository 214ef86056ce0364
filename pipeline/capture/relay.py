"""The relay: PgQ batches to Kafka, each finished only after Kafka has every record of it.

Dying anywhere loses nothing: a batch that was not finished comes again, whole and in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pipeline.capture.envelope import Envelopes
from pipeline.capture.publisher import OUTSTANDING, Publisher
from pipeline.capture.queue import Batch, Queue
from pipeline.capture.rotation import maintain
from pipeline.capture.snapshot import Snapshots
from pipeline.errors import FencedError
from pipeline.failpoints import passes

_PROBE_EVERY = 0.05
_MAINTAIN_EVERY = 5.0
_MEASURE_EVERY = 1.0


@dataclass(slots=True)
class Metrics:
    """What the heartbeat tells; written by the relay, read by the heartbeat's thread."""

    events_published: int = 0
    events_without_image: int = 0
    last_tick_at: float = 0.0
    lag_seconds: float = 0.0
    pending: int = 0
    generation: int = 0
    snapshot_rows: int = 0
    standby: int = 1


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds since 1970, and seconds that never go back."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Relay:
    """One source's relay over one session; it must hold the source's lock."""

    def __init__(
        self,
        queue: Queue,
        publisher: Publisher,
        envelopes: Envelopes,
        snapshots: Snapshots,
        metrics: Metrics,
        stopping: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._publisher = publisher
        self._envelopes = envelopes
        self._snapshots = snapshots
        self._metrics = metrics
        self._stopping = stopping
        self._clock = clock
        self._last: Batch | None = None
        self._ticked_at_value = -1
        self._probe_at = self._maintain_at = self._measure_at = 0.0

    def run_once(self) -> bool:
        """Publish and finish one batch, or one step of a snapshot; False when there was nothing to do.

        FencedError when another relay has finished the batch, PublishError when Kafka did not take it.
        """
        self._upkeep()
        if self._tick_is_due():
            self._tick()
        batch = self._queue.next_batch() if self._queue.ticked else None
        if batch is not None:
            self._relay(batch)
        snapshot_moved = self._snapshots.step(self._last)
        self._metrics.snapshot_rows = self._snapshots.rows_published
        return snapshot_moved or batch is not None

    def _relay(self, batch: Batch) -> None:
        passes("relay.batch")
        published = self._publish(batch)
        passes("relay.published")
        if not self._queue.finish(batch):
            raise FencedError(
                f"batch {batch.id} was finished by somebody else", hint="only one relay may run"
            )
        passes("relay.finished")
        self._last = batch
        self._metrics.events_published += published
        self._metrics.generation = batch.generation

    def _publish(self, batch: Batch) -> int:
        count = 0
        for event in self._queue.events(batch):
            value = self._envelopes.change(event, batch, round(self._clock.wall() * 1000))
            if value is None:
                self._metrics.events_without_image += 1
                structlog.get_logger().warning("event without row image", table=event.table, key=event.key)
                continue
            self._publisher.send(event.merchant, value)
            count += 1
            if self._publisher.full:
                self._publisher.settle(self._stopping, keep=OUTSTANDING // 2)
                passes("relay.midway")
        self._publisher.settle(self._stopping)
        return count

    def _tick_is_due(self) -> bool:
        """When the event sequence moved; or when a transaction that took its ev_id before the last tick has committed."""
        if self._last is None or self._queue.last_value() != self._ticked_at_value:
            return True
        now = self._clock.monotonic()
        if now < self._probe_at:
            return False
        self._probe_at = now + _PROBE_EVERY
        return self._queue.unticked(self._last)

    def _tick(self) -> None:
        # Read before the tick: an event in between makes one tick too many, never one too few.
        self._ticked_at_value = self._queue.last_value()
        self._queue.tick()
        self._metrics.last_tick_at = self._clock.wall()

    def _upkeep(self) -> None:
        now = self._clock.monotonic()
        if now >= self._maintain_at:
            self._maintain_at = now + _MAINTAIN_EVERY
            maintain(self._queue.connection)
        if now >= self._measure_at:
            self._measure_at = now + _MEASURE_EVERY
            lag = self._queue.lag()
            self._metrics.lag_seconds, self._metrics.pending = lag.seconds, lag.pending
