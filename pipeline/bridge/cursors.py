"""Cursors: what detached lanes have missed is read again, beside the live reader, and fed to them until they meet it.

A cursor reads one partition once, forward, for every lane that it can serve: those that want feeding and need nothing
before it. It never goes back; a lane behind it, or one that was full meanwhile, waits for the next cursor. Each reader
holds at most one cursor per partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.detached import Detached, Need, passed_retention
from pipeline.bridge.offsets import Partition
from pipeline.bridge.pending import grouped
from pipeline.errors import PositionLostError, TransientError
from pipeline.ports import Record, Rereader

_NEAR = 2000  # records behind the live reader, from which a cursor waits for its next ones
_PATIENCE = 0.02  # seconds

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Cursor:
    """One pass over a partition; ``position`` is the next record it looks at."""

    partition: Partition
    position: int
    served: dict[bytes, Detached] = field(default_factory=dict)
    reading: bool = False

    def serves(self, key: bytes) -> bool:
        """True when it is this lane that it feeds, not one that was detached anew since: that one begins further back."""
        return key in self.served and self.served[key] is self.partition.detached.get(key)

    def serve(self, keys: Iterable[bytes]) -> None:
        """Feed these lanes from now on."""
        self.served = {key: self.partition.detached[key] for key in keys}

    @property
    def behind(self) -> int:
        """Records up to the live reader."""
        return max(0, self.partition.position - self.position)

    def needs(self) -> dict[str, int]:
        """The lanes it serves, and the first offset of each that it has to bring."""
        lanes = (self.partition.detached[key] for key in self.served)
        return {one.lane.name: one.need for one in lanes}


class Cursors:
    """The cursors of one bridge, as many per partition as it has `readers`."""

    def __init__(self, readers: Sequence[Rereader], flow: Flow) -> None:
        self._slots: list[tuple[Rereader, dict[int, Cursor]]] = [(reader, {}) for reader in readers]
        self._flow = flow
        self._limits = {False: 0, True: 0}
        self.brought = 0
        self.at_work = False

    @property
    def running(self) -> list[Cursor]:
        """Every cursor there is."""
        return [cursor for _, cursors in self._slots for cursor in list(cursors.values())]

    def read(
        self, held: Mapping[int, Partition], stopped: frozenset[int], most: int | None, now: float
    ) -> None:
        """Read on, in all partitions but those `stopped`, and give each lane what is its own.

        TransientError once every reader was asked: none waits for another. ``brought`` counts the records that came;
        ``at_work``: more are wanted, whether or not some came.
        """
        self.brought, self.at_work = 0, False
        for reader, cursors in self._slots:
            self._drop(reader, cursors, held)
        for snapshot in self._limits:
            lanes = sum(len(one.feedable) for one in held.values() if one.snapshot is snapshot)
            self._limits[snapshot] = self._flow.fed_limit(lanes, snapshot=snapshot)
        for partition in held.values():
            if partition.detached:
                self._choose(partition)
        failed = None
        for reader, cursors in self._slots:
            try:
                if cursors:
                    self._read(reader, cursors, stopped, most, now)
            except TransientError as error:
                failed = error
        if failed is not None:
            raise failed

    def met(self) -> list[tuple[Partition, dict[bytes, int]]]:
        """Lanes that have all that the live reader has passed over, and from where on it feeds them."""
        found = []
        for cursor in self.running:
            partition = cursor.partition
            if cursor.behind or partition.position < partition.may_be_committed:
                continue
            if ready := [key for key in cursor.served if self._may_go(partition, key)]:
                found.append((partition, dict.fromkeys(ready, partition.position)))
        return found

    def _may_go(self, partition: Partition, key: bytes) -> bool:
        lane = partition.detached.get(key)
        if lane is None or partition.unsent(key) or key in partition.needs:
            return False
        limit = self._limits[partition.snapshot]
        return lane.wants_feeding(limit) and lane.lane.size <= limit // 2

    @staticmethod
    def _drop(reader: Rereader, cursors: dict[int, Cursor], held: Mapping[int, Partition]) -> None:
        for number, cursor in list(cursors.items()):
            if held.get(number) is not cursor.partition or not cursor.partition.detached:
                reader.drop(number)
                del cursors[number]

    def _choose(self, partition: Partition) -> None:
        """Decide which lanes each cursor of the partition serves; begin one where lanes are left over."""
        left = {
            key: partition.detached[key].need
            for key in partition.feedable
            if key not in partition.needs
            and partition.detached[key].wants_feeding(self._limits[partition.snapshot])
        }
        idle, arrived = [], []
        for slot in self._slots:
            cursor = slot[1].get(partition.number)
            if cursor is None or not any(cursor.serves(key) for key in left):
                idle.append(slot)
                continue
            cursor.serve([key for key in left if cursor.serves(key) or left[key] >= cursor.position])
            if cursor.behind:
                left = {key: need for key, need in left.items() if key not in cursor.served}
            else:
                arrived.append((slot, cursor))
        for slot, cursor in arrived:
            others = {key: need for key, need in left.items() if key not in cursor.served}
            if idle or all(need >= cursor.position for need in others.values()):
                left = others
            else:  # a new one begins here for those behind, and takes its lanes along
                idle.append(slot)
                left = others | dict.fromkeys(cursor.served, cursor.position)
        for reader, cursors in idle:
            self._begin(reader, cursors, partition, left)
            left = {}

    @staticmethod
    def _begin(
        reader: Rereader, cursors: dict[int, Cursor], partition: Partition, needs: Mapping[bytes, int]
    ) -> None:
        if partition.number in cursors:
            reader.drop(partition.number)
            del cursors[partition.number]
        if needs:
            cursor = cursors[partition.number] = Cursor(partition, min(needs.values()))
            cursor.serve(needs)

    def _read(
        self,
        reader: Rereader,
        cursors: Mapping[int, Cursor],
        stopped: frozenset[int],
        most: int | None,
        now: float,
    ) -> None:
        going = {number: cursor for number, cursor in cursors.items() if self._goes_on(cursor, stopped)}
        try:
            for number, cursor in going.items():
                if not cursor.reading:
                    reader.seek(number, cursor.position, cursor.needs)
                    cursor.reading = True
            reader.pause(frozenset(number for number in cursors if number not in going))
            if not going:
                return
            self.at_work = True
            near = any(cursor.behind <= _NEAR for cursor in going.values())
            for number, records in reader.poll(_PATIENCE if near else 0.0, most).items():
                self.brought += len(records)
                self._take(reader, cursors[number], records, now)
        except PositionLostError as error:
            self._lose(cursors, error)

    @staticmethod
    def _goes_on(cursor: Cursor, stopped: frozenset[int]) -> bool:
        partition = cursor.partition
        if partition.number in stopped or not cursor.behind:
            return False
        return not any(partition.unsent(key) for key in cursor.served)

    @staticmethod
    def _take(reader: Rereader, cursor: Cursor, records: Sequence[Record], now: float) -> None:
        """Give lanes their records up to the live reader's position: beyond it they are its own."""
        partition = cursor.partition
        below = [record for record in records if record.offset < partition.position]
        for key, (offsets, values) in grouped(below).items():
            if key is not None and key in cursor.served:
                first = next((n for n, at in enumerate(offsets) if at >= partition.detached[key].need), None)
                if first is not None:
                    partition.feed(key, offsets[first:], values[first:], now)
        if len(below) < len(records):
            cursor.position, cursor.reading = partition.position, False
        else:
            cursor.position = min(reader.position(partition.number), partition.position)

    @staticmethod
    def _lose(cursors: Mapping[int, Cursor], error: PositionLostError) -> None:
        """Nothing is passed over silently: the lanes stop, and a person decides."""
        _log.error("records of detached lanes passed retention", lost=error.what)
        for cursor, first in [(cursors[n], at) for n, at in error.first.items() if n in cursors]:
            cursor.reading = False
            if error.lanes is None:
                cursor.position = max(cursor.position, first)
            for key in cursor.served:
                lane = cursor.partition.detached[key]
                if lane.need < first and (error.lanes is None or lane.lane.name in error.lanes):
                    cursor.partition.needs[key] = Need(passed_retention(lane.need, first), "parked")
