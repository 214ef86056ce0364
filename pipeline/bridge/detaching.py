"""The steps that detach lanes, feed them by cursors, and make them ordinary again.

Detaching is one transaction; then what was known of the lane is forgotten, and the lane store is told its new incarnation.
Whoever dies in between leaves a row, from which the next bridge goes on. When a write has no answer, it may have happened:
the partition is taken over again, which reads what is true.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import structlog

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.cursors import Cursors
from pipeline.bridge.holdings import Holdings
from pipeline.bridge.offsets import Partition
from pipeline.bridge.operators import decide
from pipeline.errors import TransientError
from pipeline.failpoints import passes
from pipeline.ports import Books, Detachment, Request, Rereader

SLOW_SECONDS, SLOW_RECORDS = 300.0, 100_000
_MOST_ROWS, _MOST_RESETS = 1000, 200

_log = structlog.get_logger()


class Detaching:
    """Works on the partitions that the bridge holds."""

    def __init__(self, holdings: Holdings, books: Books, readers: Sequence[Rereader], flow: Flow) -> None:
        self._holdings = holdings
        self._books = books
        self.cursors = Cursors(readers, flow)
        self.detachments = 0

    @property
    def _partitions(self) -> list[Partition]:
        return list(self._holdings.partitions.values())

    def detach(self) -> None:
        """Write the rows of lanes that are over their budget, parked, damaged; then forget what was known of them."""
        for partition in self._partitions:
            if partition.needs:
                self._write(partition, partition.needed(_MOST_ROWS))

    def look_for_slow(self) -> None:
        """A lane whose head holds the committed offset back for long is detached."""
        now = self._holdings.clock()
        for partition in self._partitions:
            partition.slow(now, SLOW_SECONDS, SLOW_RECORDS)

    def carry_out(self) -> None:
        """Do what people ask. What the sink has accepted until now does not come again, if the lane store can tell."""
        held, requests = self._holdings.partitions, self._books.requests(self._holdings.partitions)
        with suppress(TransientError):
            for number in dict.fromkeys(request.partition for request in requests):
                self._holdings.hear(held[number])
        for request in requests:
            partition = held.get(request.partition)
            if partition is not None:
                self._carry_out(partition, request)

    def _carry_out(self, partition: Partition, request: Request) -> None:
        decision = decide(partition, request)
        if isinstance(decision, Detachment):
            self._write(partition, [decision])
            return
        with self._writing(partition):
            self._books.answer(partition.number, partition.tenure.fence, request.id, decision)

    def _write(self, partition: Partition, lanes: Sequence[Detachment]) -> None:
        incarnations: Sequence[int] = ()
        with self._writing(partition):
            passes("bridge.detaching")
            incarnations = self._books.detach(partition.number, partition.tenure.fence, lanes)
            passes("bridge.detached")
        for one, incarnation in zip(lanes, incarnations, strict=False):
            partition.detach(one, incarnation)
            _log.info("lane detached", lane=one.lane, first=one.first, state=one.state, reason=one.reason)
        self.detachments += len(incarnations)

    def feed(self, stopped: frozenset[int], most: int | None) -> None:
        """Tell the lane store new incarnations, read what detached lanes have missed, hand over where that meets the present.

        `most`: records of a partition that a cursor brings at once.
        """
        self._reset()
        try:
            self.cursors.read(self._holdings.partitions, stopped, most, self._holdings.clock())
        finally:
            self._feed()

    def _feed(self) -> None:
        # No cursor reads again what lies before the end of a lane: what is to be set aside there is stored first.
        settled = [partition for partition in self._partitions if not partition.aside.strange]
        appends = [append for partition in settled for append in partition.appends(fed=True)]
        if appends:
            self._holdings.add(appends)
        for partition, until in self.cursors.met():
            self._hand_over(partition, until)

    def _reset(self) -> None:
        left = _MOST_RESETS
        for partition in self._partitions:
            for lane in partition.unsynced(left):
                reply = self._holdings.store.reset(
                    self._holdings.epoch, partition.tenure.fence, partition.number, lane.lane.name,
                    lane.incarnation, lane.first - 1,
                )  # fmt: skip
                passes("bridge.reset")
                partition.synced(reply, self._holdings.clock())
                left -= 1

    def _hand_over(self, partition: Partition, until: dict[bytes, int]) -> None:
        names = {partition.detached[key].lane.name: offset for key, offset in until.items()}
        with self._writing(partition):
            self._books.hand_over(partition.number, partition.tenure.fence, names)
            passes("bridge.handed_over")
            for key, offset in until.items():
                partition.hand_over(key, offset)

    def keep_books(self) -> None:
        """Write how far detached lanes are accepted; rows that have nothing left go."""
        for partition in self._partitions:
            if partition.detached and not partition.aside.strange:
                self._advance(partition)

    def _advance(self, partition: Partition) -> None:
        closing = [key for key, lane in partition.detached.items() if lane.finished]
        moved = {
            key: lane
            for key, lane in partition.detached.items()
            if lane.first > lane.written and not lane.finished
        }
        number, fence = partition.number, partition.tenure.fence
        # A write without an answer may arrive late, behind a rewind of the same lane: only a new fence keeps it out.
        with self._writing(partition):
            if moved:
                self._books.advance(number, fence, {one.lane.name: one.first for one in moved.values()})
                for lane in moved.values():
                    lane.written = lane.first
            if closing:
                self._books.close(number, fence, [partition.detached[key].lane.name for key in closing])
                passes("bridge.closed")
                for key in closing:
                    partition.close(key)

    @contextmanager
    def _writing(self, partition: Partition) -> Iterator[None]:
        """A write that has no answer may have happened: only a new take-over knows."""
        try:
            yield
        except TransientError as error:
            self._holdings.lose([partition.number], error)
            raise
