"""The bridge's loop: poll, append to lanes, hear what sinks accepted, commit. Pure logic on the ports.

A partition is taken over before anything of it is read: a fence is drawn and its detached lanes are read, and Kafka proves
by accepting a commit that the partition is ours. What the lane store then says about loss: another epoch, and everything
is taken over again, while lanes keep what they have; a lane that does not fit is detached and read again by itself.

Nothing is committed past a sweep before it is recorded that everything in front of it is accepted or set aside, or that
only detached lanes have something left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.commits import Commits
from pipeline.bridge.detaching import Detaching
from pipeline.bridge.doubles import Doubles
from pipeline.bridge.hearing import Hearing
from pipeline.bridge.holdings import Holdings
from pipeline.bridge.lag import Lag
from pipeline.bridge.offsets import Partition
from pipeline.bridge.pace import GLANCE, Step
from pipeline.bridge.yielding import Yielding
from pipeline.errors import EpochLostError, FencedError, PositionLostError, StoreFullError, TransientError
from pipeline.failpoints import passes
from pipeline.ports import Books, LaneStore, Offsets, RecordSource, Rereader
from pipeline.telemetry import Metrics

POLL_SECONDS, ROUND_SECONDS = 0.1, 0.012  # a round from start to start: ten records cost little more than one
COMMIT_EVERY, HEAR_EVERY, CHECK_EVERY, MEASURE_EVERY = 0.5, 0.5, 1.0, 5.0
ASK_EVERY, SLOW_EVERY, KEEP_EVERY = 1.0, 10.0, 1.0
OVERDUE_AFTER, _CHECKS = 10.0, 1000

_log = structlog.get_logger()


class Dispatcher:
    """Moves records of a consumer's topics into its lanes, for the partitions that `source` is given.

    `partitions`: how many each of the topics has. `readers`: as many cursors as may run in a partition.
    """

    def __init__(
        self,
        source: RecordSource,
        offsets: Offsets,
        store: LaneStore,
        books: Books,
        readers: Sequence[Rereader],
        *,
        partitions: int,
        flow: Flow,
        yielding: Yielding | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._offsets = offsets
        self._store = store
        self._books = books
        self._count = partitions
        self._flow = flow
        self._clock = clock
        self._holdings = Holdings(store, clock)
        self._detaching = Detaching(self._holdings, books, readers, flow)
        self._paused: frozenset[int] = frozenset()
        self._consumer_paused = False
        self._records = self._set_aside_count = self._sweeps = 0
        self._lag = Lag(source, self._holdings)
        self._yielding = yielding or Yielding()
        self._commits = Commits(offsets, clock)
        self._hearing = Hearing(self._holdings, HEAR_EVERY)
        self._last_words = (
            Step(self._hearing.all),
            Step(self._pass),
            Step(self._detaching.keep_books),
            Step(self._commit),
        )
        self._steps = (
            Step(self._take_over),
            Step(self._set_aside),
            Step(self._detaching.detach),
            Step(self._append),
            Step(self._feed),
            Step(self._hearing.some),
            Step(self._check, CHECK_EVERY),
            Step(self._detaching.look_for_slow, SLOW_EVERY),
            Step(self._pass),
            Step(self._commit, COMMIT_EVERY),
            Step(self._detaching.keep_books, KEEP_EVERY),
            Step(self._carry_out, ASK_EVERY),
            Step(self._lag.measure, MEASURE_EVERY),
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
        self._yielding.begin(self._clock())
        has_read = self._read()
        for step in self._short_steps() if has_read else self._steps:
            self._attempt(step)
        self._yielding.end(self._clock())
        self._adjust_flow()
        return has_read

    def _short_steps(self) -> list[Step]:
        """What each round does, and of the rest what is due for longest: other records wait for the end of this round."""
        first = min((step for step in self._steps if step.every), key=lambda step: step.due)
        return [step for step in self._steps if not step.every or step is first]

    @property
    def _held(self) -> dict[int, Partition]:
        return self._holdings.partitions

    def fences(self) -> dict[int, int]:
        """The partitions that are held now, each with its fence; read from other threads."""
        return {number: held.tenure.fence for number, held in list(self._held.items())}

    def metrics(self) -> Metrics:
        """What the heartbeat shows; read from its thread."""
        held = list(self._held.values())
        detached = [lane for partition in held for lane in list(partition.detached.values())]
        cursors = self._detaching.cursors.running
        return {
            "records": self._records,
            "lag": self._lag.changes,
            "snapshot_lag": self._lag.snapshots,
            "pending_lanes": sum(partition.pending_lanes for partition in held),
            "pending_bytes": sum(partition.size for partition in held),
            "partitions": len(held),
            "paused_partitions": len(self._paused),
            "committed_age_s": round(self._commits.age, 1),
            "resyncs": self._holdings.losses,
            "set_aside": self._set_aside_count,
            "sweeps": self._sweeps,
            "doubles": sum(partition.doubles.dropped for partition in held),
            "detached_lanes": len(detached),
            "parked_lanes": sum(lane.state == "parked" for lane in detached),
            "paused_lanes": sum(lane.state == "paused" for lane in detached),
            "detachments": self._detaching.detachments,
            "cursors": len(cursors),
            "cursor_lag": sum(cursor.behind for cursor in cursors),
            "held_by_a_person": int(self._consumer_paused),
        }

    def _read(self) -> bool:
        """Take what came. Nothing here keeps it: those are megabytes, and cursors read theirs after it."""
        yielding = self._yielding
        longest = ROUND_SECONDS if self._detaching.cursors.at_work else POLL_SECONDS
        patience = max(GLANCE, min(longest, yielding.rest)) if yielding.rest else longest
        try:
            polled = self._source.poll(patience, yielding.most, yielding.resting)
        except TransientError as error:
            _log.warning("kafka does not answer", error=str(error))
            return False
        passes("bridge.polled")
        self._holdings.reassign(polled.revoked, polled.assigned)
        self._commits.forget(polled.revoked | polled.assigned)
        now = self._clock()
        yielding.reassigned(polled.revoked | polled.assigned, now)
        yielding.polled(polled.left, now)
        for number, records in polled.records.items():
            partition = self._held.get(number)
            if partition is not None and records:
                partition.receive(records, now, self._flow.lane_limit(snapshot=partition.snapshot))
                self._records += len(records)
        return bool(polled.records)

    def _attempt(self, step: Step) -> None:
        now = self._clock()
        if now < step.due:
            return
        try:
            step.run()
        except (EpochLostError, FencedError) as error:
            self._holdings.start_over(error)
            step.failed(self._clock())
        except TransientError as error:
            step.failed(self._clock())
            if not isinstance(error, StoreFullError):
                _log.warning("trying again", step=step.run.__name__.strip("_"), error=str(error))
        else:
            step.succeeded(now)

    def _take_over(self) -> None:
        """Draw fences, read detached lanes, prove it to Kafka, and read on from the committed offsets."""
        numbers = frozenset(self._holdings.unready)
        if not numbers:
            return
        takeovers = self._books.take_over(numbers)
        passes("bridge.fenced")
        committed = self._offsets.committed(numbers)
        if lost := numbers - committed.keys():
            raise PositionLostError(
                f"no committed offset for partitions {sorted(lost)}",
                hint="set the group's offsets to where to go on from, then snapshot every source",
            )
        self._commits.prove(committed)
        ends = self._source.ends(numbers)
        waiting = {number: self._books.waiting_sweeps(number) for number in numbers}
        self._consumer_paused = self._books.consumer_paused()
        _ = self._holdings.epoch
        for number in numbers:
            offset, note = committed[number]
            self._source.seek(number, offset)
            tenure, rows = takeovers[number]
            partition = Partition(number, self._count, tenure, offset, Doubles.noted(offset, note), rows)
            partition.aside.waiting, partition.end = list(waiting[number]), ends[number]
            partition.may_be_committed = self._commits.may_arrive(number)
            self._held[number] = partition
            self._holdings.unready.discard(number)
        _log.info("partitions taken over", partitions=sorted(numbers))

    def _set_aside(self) -> None:
        """Store what belongs to no lane, with its reason; only then is it done."""
        strange = [rejection for partition in self._held.values() for rejection in partition.aside.strange]
        if not strange:
            return
        self._books.set_aside(strange)
        self._set_aside_count += len(strange)
        for partition in self._held.values():
            partition.aside.strange = []

    def _append(self) -> None:
        """Append all that was read, for all lanes of a kind in a call or two: changes, then rows of snapshots.

        Lanes that got little go ahead: workers have their turns while the long runs are appended.
        """
        for snapshots in (False, True):
            kind = [held for held in self._held.values() if held.snapshot is snapshots]
            appends = [append for held in kind for append in held.appends()]
            self._holdings.add_short_first(appends)

    def _feed(self) -> None:
        stopped = self._consumer_paused or self._yielding.rest > 0
        self._detaching.feed(frozenset(self._held) if stopped else self._paused, self._yielding.most)
        self._yielding.read_again(self._detaching.cursors.brought)

    def _check(self) -> None:
        """Ask lanes that are silent for too long: finds damage and lost news without traffic."""
        now = self._clock()
        for partition in self._held.copy().values():
            if overdue := partition.overdue(now, OVERDUE_AFTER, _CHECKS):
                self._holdings.add(overdue)

    def _pass(self) -> None:
        """Record sweeps before which everything is done; only then are they done themselves."""
        held = [
            partition
            for partition in self._held.values()
            if partition.aside.sweeps or partition.aside.waiting
        ]
        for partition in held:
            partition.look_at_sweeps()
            if records := partition.aside.to_wait:
                self._books.wait_sweeps(partition.number, partition.tenure.fence, records)
                partition.aside.waits(records)
        reached = [record for partition in held for record in partition.aside.reached]
        if not reached:
            return
        passes("bridge.passing")
        self._books.pass_sweeps(reached)
        passes("bridge.passed")
        self._sweeps += len(reached)
        for partition in held:
            partition.aside.passed(reached)

    def _commit(self) -> None:
        """Commit the smallest pending offset of each partition, or its position when nothing is pending."""
        positions = {number: self._watermark(partition) for number, partition in self._held.items()}
        self._commits.move(self._held, positions)

    def _watermark(self, partition: Partition) -> int:
        smallest = partition.smallest_pending()
        return self._source.position(partition.number) if smallest is None else smallest

    def _carry_out(self) -> None:
        """Do what people ask: of the whole consumer, and of single lanes."""
        self._consumer_paused = self._books.consumer_paused()
        self._detaching.carry_out()

    def _adjust_flow(self) -> None:
        paused = self._flow.paused(self._held.values(), self._clock()) | self._holdings.unready
        if self._consumer_paused:
            paused |= frozenset(self._held)
        if paused != self._paused:
            self._source.pause(paused)
            self._paused = paused
