"""The relay: PgQ batches to Kafka, each finished only after Kafka has every record of it.

Before a batch's first record Kafka has the batch's mark, so a database that lost something published is recognised.
Dying anywhere loses nothing: a batch that was not finished comes again, whole, in the same order, under the same mark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from pipeline.capture import away, emit, sweeping
from pipeline.capture.envelope import Envelopes, UnknownTableError
from pipeline.capture.outlet import Outlet
from pipeline.capture.progress import Progress, forget
from pipeline.capture.publisher import OUTSTANDING, Publisher
from pipeline.capture.queue import Batch, Event, Queue
from pipeline.capture.repairs import Repairs
from pipeline.capture.reread import Rereader
from pipeline.capture.rotation import maintain
from pipeline.capture.snapshot import Snapshots
from pipeline.capture.truncate import PART, WHOLE, Truncations
from pipeline.capture.watch import Metrics, Watch
from pipeline.errors import FencedError
from pipeline.failpoints import passes

_PROBE_EVERY = 0.05
_MAINTAIN_EVERY = 5.0
_MEASURE_EVERY = 1.0
_MARKS_KEPT = 100  # ticks behind the last finished one
_BUSY_FOR = 1.0  # seconds for which changes that came in are taken to go on


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds since 1970, and seconds that never go back."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Relay:
    """One source's relay over one session; it must hold the source's lock. `still_ours` raises when it lost its right."""

    def __init__(
        self,
        queue: Queue,
        publisher: Publisher,
        envelopes: Envelopes,
        snapshots: Snapshots,
        repairs: Repairs,
        reread: Rereader,
        outlet: Outlet,
        watch: Watch,
        metrics: Metrics,
        still_ours: Callable[[], None],
        stopping: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._publisher = publisher
        self._envelopes = envelopes
        self._snapshots = snapshots
        self._repairs = repairs
        self._reread = reread
        self._outlet = outlet
        self._watch = watch
        self._metrics = metrics
        self._still_ours = still_ours
        self._stopping = stopping
        self._clock = clock
        self._last: Batch | None = None
        self._ticked_at_value = -1
        self._probe_at = self._maintain_at = self._measure_at = self._busy_until = 0.0

    def run_once(self) -> bool:
        """Publish and finish one batch, or one step of a snapshot; False when there was nothing to do.

        FencedError when another relay has finished the batch, PublishError when Kafka did not take it.
        """
        if self._last is None:
            self._upkeep()
        value = self._queue.last_value()
        if self._tick_is_due(value):
            self._tick(value)
        batch = self._queue.next_batch() if self._queue.ticked else None
        if batch is not None:
            self._relay(batch)
        self._upkeep()
        busy = self._clock.monotonic() < self._busy_until
        return self._snapshots.step(self._last, busy=busy) or batch is not None

    def _relay(self, batch: Batch) -> None:
        passes("relay.batch")
        self._announce(batch)
        passes("relay.announced")
        try:
            published = self._publish(batch)
        finally:
            self._reread.close()
        passes("relay.published")
        if not self._queue.finish(batch):
            raise FencedError(
                f"batch {batch.id} was finished by somebody else", hint="only one relay may run"
            )
        passes("relay.finished")
        self._last = batch
        if published:
            self._busy_until = self._clock.monotonic() + _BUSY_FOR
        self._metrics.events_published += published
        self._metrics.batches += 1
        self._metrics.generation = batch.generation

    def _announce(self, batch: Batch) -> None:
        """Tell Kafka which batch comes; nothing of it is sent before Kafka has this."""
        outlet = self._outlet
        progress = Progress(outlet.source, batch.generation, batch.tick, batch.mark, outlet.timeline)
        value = msgspec.json.encode(progress)
        self._publisher.confirm(outlet.progress, outlet.source.encode(), value, self._stopping)

    def _publish(self, batch: Batch) -> int:
        count = 0
        send, topic = self._publisher.send, self._outlet.datastream
        truncations = Truncations()
        emptied = truncations.emptied
        for event in self._events(batch):
            try:
                if event.op in (WHOLE, PART):
                    if truncations.note(event):
                        self._sweep(event, batch)
                    continue
                value = self._envelopes.change(event, batch, round(self._clock.wall() * 1000))
            except UnknownTableError:
                if self._reread.captures(event.table):
                    raise
                self._metrics.events_left_out += 1
                continue
            if emptied:
                emptied.discard((event.txid, event.table))
            if value is None:
                value = self._again(event, batch)
                if value is None:
                    continue
            send(topic, event.merchant, value)
            if event.op == emit.OPERATION:
                send(self._outlet.eventstream, event.merchant, value)
            count += 1
            if self._publisher.full:
                self._publisher.settle(self._stopping, keep=OUTSTANDING // 2)
                passes("relay.midway")
        self._publisher.settle(self._stopping)
        truncations.settle(self._queue.connection)
        return count

    def _sweep(self, event: Event, batch: Batch) -> None:
        """A whole table was emptied: told in every partition, at its place among the changes."""
        type = self._envelopes.type_of(event.table)
        sweep = sweeping.of_truncate(self._outlet.source, event.table, type, batch.generation, event.ev)
        sweeping.publish(self._publisher, self._outlet, sweep)
        self._snapshots.emptied(event.table)
        self._metrics.sweeps_published += 1

    def _events(self, batch: Batch) -> Iterator[Event]:
        events = self._queue.events(batch)
        return self._told(events, batch.away) if batch.away else events

    def _told(self, events: Iterator[Event], intervals: away.Intervals) -> Iterator[Event]:
        """Without those of merchants that are away."""
        for event in events:
            if away.is_away(intervals, event.merchant, event.ev):
                self._metrics.events_left_out += 1
            else:
                yield event

    def _again(self, event: Event, batch: Batch) -> bytes | None:
        """The envelope of a change whose image the trigger could not make; None when there is no row to show."""
        if event.after is not None or event.op == "d":  # it has one: its key is too large
            self._metrics.events_too_large += 1
            return None
        self._metrics.events_without_image += 1
        completed = self._reread.completed(event)
        if completed is None:
            return None
        self._metrics.events_read_again += 1
        return self._envelopes.change(completed, batch, round(self._clock.wall() * 1000))

    def _tick_is_due(self, value: int) -> bool:
        """When the event sequence moved; or when a transaction that took its ev_id before the last tick has committed."""
        if self._last is None or value != self._ticked_at_value:
            return True
        now = self._clock.monotonic()
        if now < self._probe_at:
            return False
        self._probe_at = now + _PROBE_EVERY
        return self._queue.unticked(self._last)

    def _tick(self, value: int) -> None:
        # `value` was read before the tick: an event in between makes one tick too many, never one too few.
        self._ticked_at_value = value
        self._queue.tick()
        self._metrics.last_tick_at = self._clock.wall()

    def _upkeep(self) -> None:
        """What is due, one thing a round: changes wait for it."""
        now = self._clock.monotonic()
        if now >= self._measure_at:
            self._measure_at = now + _MEASURE_EVERY
            self._require_right()
            self._watch.look(self._queue)
        elif now >= self._maintain_at:
            self._maintain_at = now + _MAINTAIN_EVERY
            maintain(self._queue.connection)
            self._watch.look_closely(self._queue)
            self._repairs.look()
            if self._last is not None:
                forget(self._queue.connection, self._last.tick - _MARKS_KEPT)
                away.forget(self._queue.connection)

    def _require_right(self) -> None:
        """Between batches: this session holds the lock, and the source is still this database."""
        if not self._queue.holds_lock():
            raise FencedError("the source's lock is no longer this session's", hint="is a pooler in between?")
        self._still_ours()
