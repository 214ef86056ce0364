"""The bridge's loop: poll, append to lanes, hear what sinks accepted, commit. Pure logic on the ports.

A partition is taken over before anything of it is read: a fence is drawn, and Kafka proves by accepting a commit that
the partition is ours. Whatever the lane store then says about loss (another epoch, a broken chain) ends in the same
act: forget, seek to the committed offset, read again; lanes keep what they have.

Nothing is committed past a sweep before it is recorded that everything in front of it is accepted or set aside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.commits import Commits
from pipeline.bridge.doubles import Doubles
from pipeline.bridge.offsets import Partition, SweepRecord
from pipeline.bridge.pace import Step
from pipeline.consumer import Rejection
from pipeline.errors import (
    EpochLostError,
    FencedError,
    PipelineError,
    PositionLostError,
    StoreFullError,
    TransientError,
)
from pipeline.failpoints import passes
from pipeline.ports import Append, Appended, LaneStore, Offsets, Polled, RecordSource
from pipeline.telemetry import Metrics

POLL_SECONDS = 0.1
ROUND_SECONDS = 0.01  # from start to start: a round with ten records costs little more than one with one
COMMIT_EVERY, HEAR_EVERY, CHECK_EVERY, MEASURE_EVERY = 0.5, 0.5, 1.0, 5.0
OVERDUE_AFTER = 10.0
_NEWS, _CHECKS = 1000, 1000

_log = structlog.get_logger()

DrawFences = Callable[[Iterable[int]], Mapping[int, int]]
SetAside = Callable[[Sequence[Rejection]], None]
PassSweeps = Callable[[Sequence[SweepRecord]], None]


class Dispatcher:
    """Moves records of a consumer's topics into its lanes, for the partitions that `source` is given.

    `partitions`: how many each of the topics has.
    """

    def __init__(
        self,
        source: RecordSource,
        offsets: Offsets,
        store: LaneStore,
        *,
        partitions: int,
        draw_fences: DrawFences,
        set_aside: SetAside,
        pass_sweeps: PassSweeps,
        flow: Flow,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._offsets = offsets
        self._store = store
        self._count = partitions
        self._draw_fences = draw_fences
        self._store_rejections = set_aside
        self._record_sweeps = pass_sweeps
        self._flow = flow
        self._clock = clock
        self._epoch: str | None = None
        self._held: dict[int, Partition] = {}
        self._unready: set[int] = set()
        self._paused: frozenset[int] = frozenset()
        self._records = self._resyncs = self._set_aside_count = self._sweeps = 0
        self._lag = self._snapshot_lag = 0
        self._commits = Commits(offsets, clock)
        self._last_words = (Step(self._hear), Step(self._pass), Step(self._commit))
        self._steps = (
            Step(self._take_over),
            Step(self._set_aside),
            Step(self._append),
            Step(self._hear, HEAR_EVERY),
            Step(self._check, CHECK_EVERY),
            Step(self._pass),
            Step(self._commit, COMMIT_EVERY),
            Step(self._measure, MEASURE_EVERY),
        )

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; then commit what is accepted."""
        while not stop.is_set():
            next_at = self._clock() + ROUND_SECONDS
            self.run_once()
            stop.wait(max(0.0, next_at - self._clock()))
        for step in self._last_words:
            self._attempt(step)

    def run_once(self) -> bool:
        """One round; True when it read records. PositionLostError when going on would lose events."""
        polled = self._poll()
        passes("bridge.polled")
        self._reassign(polled)
        self._receive(polled)
        for step in self._steps:
            self._attempt(step)
        self._adjust_flow()
        return bool(polled.records)

    def metrics(self) -> Metrics:
        """What the heartbeat shows; read from its thread."""
        held = list(self._held.values())
        return {
            "records": self._records,
            "lag": self._lag,
            "snapshot_lag": self._snapshot_lag,
            "pending_lanes": sum(partition.pending_lanes for partition in held),
            "pending_bytes": sum(partition.size for partition in held),
            "partitions": len(held),
            "paused_partitions": len(self._paused),
            "committed_age_s": round(self._commits.age, 1),
            "resyncs": self._resyncs,
            "set_aside": self._set_aside_count,
            "sweeps": self._sweeps,
            "doubles": sum(partition.doubles.dropped for partition in held),
        }

    def _poll(self) -> Polled:
        try:
            return self._source.poll(POLL_SECONDS)
        except TransientError as error:
            _log.warning("kafka does not answer", error=str(error))
            return Polled(records={})

    def _reassign(self, polled: Polled) -> None:
        """What was given or taken away is forgotten: only a new take-over knows where it stands."""
        for partition in polled.revoked | polled.assigned:
            self._held.pop(partition, None)
        self._unready = (self._unready - polled.revoked) | polled.assigned

    def _receive(self, polled: Polled) -> None:
        now = self._clock()
        for number, records in polled.records.items():
            partition = self._held.get(number)
            if partition is not None and records:
                partition.receive(records, now, self._flow.lane_bytes)
                self._records += len(records)

    def _attempt(self, step: Step) -> None:
        now = self._clock()
        if now < step.due:
            return
        try:
            step.run()
        except (EpochLostError, FencedError) as error:
            self._start_over(error)
            step.failed(now)
        except TransientError as error:
            step.failed(now)
            if not isinstance(error, StoreFullError):
                _log.warning("trying again", step=step.run.__name__.strip("_"), error=str(error))
        else:
            step.succeeded(now)

    def _start_over(self, reason: PipelineError) -> None:
        """Take every partition over again. Whether it is still ours, Kafka decides then."""
        _log.warning("reading again from the committed offsets", reason=str(reason))
        self._resyncs += 1
        self._epoch = None
        self._unready |= set(self._held)
        self._held.clear()

    def _take_over(self) -> None:
        """Draw fences, prove them to Kafka, and read on from the committed offsets."""
        if not self._unready:
            return
        fences = self._draw_fences(self._unready)
        numbers = frozenset(self._unready)
        committed = self._offsets.committed(numbers)
        if lost := numbers - committed.keys():
            raise PositionLostError(
                f"no committed offset for partitions {sorted(lost)}",
                hint="set the group's offsets to where to go on from, then snapshot every source",
            )
        self._commits.prove(committed)
        if self._epoch is None:
            self._epoch = self._store.epoch()
        for number in numbers:
            offset, note = committed[number]
            self._source.seek(number, offset)
            doubles = Doubles.noted(offset, note)
            self._held[number] = Partition(number, self._count, fences[number], offset, doubles)
            self._unready.discard(number)
        _log.info("partitions taken over", partitions=sorted(numbers))

    def _set_aside(self) -> None:
        """Store what belongs to no lane, with its reason; only then is it done."""
        strange = [rejection for partition in self._held.values() for rejection in partition.strange]
        if not strange:
            return
        self._store_rejections(strange)
        self._set_aside_count += len(strange)
        for partition in self._held.values():
            partition.strange = []

    def _append(self) -> None:
        """Append all that was read, for all lanes of a kind in one call: changes, then rows of snapshots."""
        for snapshots in (False, True):
            kind = [held for held in self._held.values() if held.snapshot is snapshots]
            if appends := [append for held in kind for append in held.appends()]:
                self._heed(self._add(appends))

    def _check(self) -> None:
        """Ask lanes that are silent for too long: finds damage and lost news without traffic."""
        now = self._clock()
        for partition in self._held.copy().values():
            if overdue := partition.overdue(now, OVERDUE_AFTER, _CHECKS):
                self._heed(self._add(overdue))

    def _add(self, appends: Sequence[Append]) -> Sequence[Appended]:
        fences = {append.partition: self._held[append.partition].fence for append in appends}
        replies = self._store.add(self._known_epoch(), fences, appends)
        passes("bridge.appended")
        return replies

    def _known_epoch(self) -> str:
        assert self._epoch is not None  # nothing is held before the epoch is known
        return self._epoch

    def _heed(self, replies: Sequence[Appended]) -> None:
        damaged: dict[int, list[str]] = {}
        now = self._clock()
        for reply in replies:
            if reply.damaged:
                damaged.setdefault(reply.partition, []).append(reply.lane)
                continue
            partition = self._held[reply.partition]
            partition.appended(reply.lane, reply.enqueued, now)
            partition.accept(reply.lane, reply.acknowledged)
        for number, lanes in damaged.items():
            self._repair(self._held[number], lanes)

    def _repair(self, partition: Partition, lanes: Sequence[str]) -> None:
        """Empty the damaged lanes down to what is accepted and read their partition again."""
        _log.warning("damaged lanes are refilled", partition=partition.number, lanes=len(lanes))
        self._resyncs += 1
        for lane in lanes:
            base = partition.base_of(lane)
            self._store.reset(self._known_epoch(), partition.fence, partition.number, lane, base)
        self._source.seek(partition.number, partition.committed)
        self._held[partition.number] = partition.restarted()

    def _hear(self) -> None:
        """Fetch what sinks have accepted since."""
        for partition in self._held.values():
            more = partition.pending_lanes > 0
            while more:
                news = self._store.acknowledged(self._known_epoch(), partition.number, _NEWS)
                for lane, offset in news:
                    partition.accept(lane, offset)
                more = len(news) == _NEWS

    def _pass(self) -> None:
        """Record sweeps before which everything is done; only then are they done themselves."""
        reached = [record for partition in self._held.values() for record in partition.reached()]
        if not reached:
            return
        passes("bridge.passing")
        self._record_sweeps(reached)
        passes("bridge.passed")
        self._sweeps += len(reached)
        for partition in self._held.values():
            partition.passed(reached)

    def _commit(self) -> None:
        """Commit the smallest pending offset of each partition, or its position when nothing is pending."""
        positions = {number: self._watermark(partition) for number, partition in self._held.items()}
        self._commits.move(self._held, positions)

    def _watermark(self, partition: Partition) -> int:
        smallest = partition.smallest_pending()
        return self._source.position(partition.number) if smallest is None else smallest

    def _measure(self) -> None:
        ends = self._source.ends(frozenset(self._held))
        behind = {number: max(0, ends[number] - held.committed) for number, held in self._held.items()}
        self._lag = sum(lag for number, lag in behind.items() if number < self._count)
        self._snapshot_lag = sum(behind.values()) - self._lag

    def _adjust_flow(self) -> None:
        paused = self._flow.paused(self._held.values(), self._clock()) | self._unready
        if paused != self._paused:
            self._source.pause(paused)
            self._paused = paused
