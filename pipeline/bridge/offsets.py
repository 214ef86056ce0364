"""What of a partition is read but not yet done: the events of its lanes, what belongs to none, sweeps; the smallest of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from pipeline.bridge.doubles import Doubles
from pipeline.bridge.pending import Lane
from pipeline.consumer import Rejection
from pipeline.domain.event import merchant_of_key
from pipeline.domain.routing import lane_of, merchant_of_lane, partition_of
from pipeline.domain.sweep import Sweep, decode_sweep
from pipeline.ports import Append, Record


class SweepRecord(NamedTuple):
    """A sweep where a bridge has read it; ``partition`` is numbered through."""

    partition: int
    offset: int
    sweep: Sweep


class Partition:
    """Everything this bridge knows about one partition since it took it over with `fence` at `committed`.

    `number` is numbered through topics of so many `partitions`: those beyond hold the rows that snapshots read.
    """

    def __init__(
        self, number: int, partitions: int, fence: int, committed: int, doubles: Doubles | None = None
    ) -> None:
        self.number = number
        self.fence = fence
        self.committed = committed
        self.doubles = doubles or Doubles(committed, {})
        self.position = committed
        self.size = 0
        self.snapshot = number >= partitions
        self.strange: list[Rejection] = []
        self.sweeps: list[SweepRecord] = []
        self.full: set[bytes] = set()
        self._partitions = partitions
        self._lanes: dict[bytes, Lane] = {}
        self._pending: dict[bytes, Lane] = {}
        self._unsent: dict[bytes, Lane] = {}
        self._heads: list[tuple[int, bytes]] = []

    @property
    def pending_lanes(self) -> int:
        """Lanes with events that no sink has accepted yet."""
        return len(self._pending)

    @property
    def waiting(self) -> bool:
        """True while something read is neither in its lane nor set aside."""
        return bool(self._unsent or self.strange)

    def restarted(self) -> Partition:
        """The same partition, knowing nothing but the committed position."""
        doubles = self.doubles.at(self.committed)
        return Partition(self.number, self._partitions, self.fence, self.committed, doubles)

    def receive(self, records: Sequence[Record], now: float, lane_bytes: int) -> None:
        """Take the next records, by merchant; what belongs to no lane waits to be set aside, doubles go.

        Sweeps wait for everything before them.
        """
        groups: dict[bytes | None, tuple[list[int], list[bytes | None]]] = {}
        for record in self.doubles.without(records):
            group = groups.get(record.key)
            if group is None:
                group = groups[record.key] = ([], [])
            group[0].append(record.offset)
            group[1].append(record.value)
        for key, (offsets, values) in groups.items():
            self._distribute(key, offsets, values, now, lane_bytes)
        self.position = records[-1].offset + 1

    def _distribute(
        self, key: bytes | None, offsets: list[int], values: list[bytes | None], now: float, lane_bytes: int
    ) -> None:
        if key is None:
            self._take_controls(offsets, values)
            return
        lane = self._lane(key)
        if lane is None:
            self._set_aside(offsets, values, self._strangeness(key))
            return
        if None in values:
            offsets, values = self._without_empty(merchant_of_lane(lane.name), offsets, values)
        present = [value for value in values if value is not None]
        if present:
            self._enter(key, lane, offsets, present, now)
            if lane.size > lane_bytes:
                self.full.add(key)

    def _take_controls(self, offsets: list[int], values: list[bytes | None]) -> None:
        for offset, value in zip(offsets, values, strict=True):
            sweep = decode_sweep(value)
            if sweep is None:
                self._set_aside([offset], [value], "a record without key")
            else:
                self.sweeps.append(SweepRecord(self.number, offset, sweep))

    def _enter(self, key: bytes, lane: Lane, offsets: list[int], values: list[bytes], now: float) -> None:
        idle, before = not lane.chunks, lane.size
        lane.receive(offsets, values, now)
        self.size += lane.size - before
        self._unsent[key] = lane
        if idle:
            self._pending[key] = lane
            heappush(self._heads, (offsets[0], key))

    def _without_empty(
        self, merchant: str, offsets: list[int], values: list[bytes | None]
    ) -> tuple[list[int], list[bytes | None]]:
        pairs = list(zip(offsets, values, strict=True))
        empty = [offset for offset, value in pairs if value is None]
        self._set_aside(empty, [None] * len(empty), "a record without value", merchant)
        kept = [(offset, value) for offset, value in pairs if value is not None]
        return [offset for offset, _ in kept], [value for _, value in kept]

    def _lane(self, key: bytes) -> Lane | None:
        lane = self._lanes.get(key)
        if lane is None:
            merchant = merchant_of_key(key)
            if merchant is None or partition_of(merchant, self._partitions) != self._own_number:
                return None
            lane = self._lanes[key] = Lane(lane_of(merchant, snapshot=self.snapshot))
        return lane

    @property
    def _own_number(self) -> int:
        """The partition's number within its topic."""
        return self.number % self._partitions

    def _strangeness(self, key: bytes) -> str:
        merchant = merchant_of_key(key)
        if merchant is None:
            return f"the key {key[:70]!r} is no merchant id"
        right = partition_of(merchant, self._partitions)
        return f'merchant "{merchant}" belongs to partition {right}, not {self._own_number}'

    def _set_aside(
        self, offsets: Sequence[int], values: Sequence[bytes | None], reason: str, merchant: str = ""
    ) -> None:
        self.strange += [
            Rejection(merchant, self._own_number, offset, reason, value or b"", snapshot=self.snapshot)
            for offset, value in zip(offsets, values, strict=True)
        ]

    def appends(self) -> Iterator[Append]:
        """What waits to be appended: one part per lane."""
        for lane in self._unsent.values():
            chunk = lane.unsent
            assert chunk is not None  # _unsent holds exactly the lanes that have one
            yield Append(lane.name, self.number, lane.previous, chunk.offsets, chunk.values)

    def appended(self, lane: str, enqueued: int, now: float) -> None:
        """That lane has answered: it holds everything received for it, and ends at `enqueued`."""
        key = _key(lane)
        self._unsent.pop(key, None)
        self._lanes[key].appended(enqueued, now)

    def accept(self, name: str, offset: int) -> None:
        """The sink has accepted that lane up to `offset`."""
        key = _key(name)
        lane = self._pending.get(key)
        if lane is None:
            return
        before = lane.head
        self.size -= lane.accept(offset)
        head = lane.head
        if head is None:
            del self._pending[key]
        elif head != before:
            heappush(self._heads, (head, key))

    def smallest_pending(self) -> int | None:
        """The smallest offset that is not done: no sink has accepted it, or it is not set aside, or a sweep not passed."""
        controls = [record.offset for record in self.sweeps[:1]]
        events = self._smallest_event()
        return min(controls if events is None else [events, *controls], default=None)

    def reached(self) -> list[SweepRecord]:
        """Sweeps before which everything is accepted or set aside."""
        if not self.sweeps:
            return []
        events = self._smallest_event()
        return [record for record in self.sweeps if events is None or record.offset < events]

    def passed(self, records: Sequence[SweepRecord]) -> None:
        """That is recorded of these sweeps."""
        offsets = {record.offset for record in records if record.partition == self.number}
        self.sweeps = [record for record in self.sweeps if record.offset not in offsets]

    def _smallest_event(self) -> int | None:
        heads = self._heads
        while heads and not self._is_head(*heads[0]):
            heappop(heads)
        smallest = [heads[0][0]] if heads else []
        smallest += [rejection.offset for rejection in self.strange]
        return min(smallest, default=None)

    def _is_head(self, offset: int, key: bytes) -> bool:
        lane = self._pending.get(key)
        return lane is not None and lane.head == offset

    def base_of(self, lane: str) -> int:
        """The last offset of a lane below which everything is accepted."""
        head = self._lanes[_key(lane)].head
        return (self.position if head is None else head) - 1

    def overdue(self, now: float, age: float, limit: int) -> list[Append]:
        """Empty appends for lanes whose oldest pending event is `age` seconds old and that were silent since."""
        appends: list[Append] = []
        for key, lane in self._pending.items():
            if max(lane.chunks[0].read_at, lane.answered_at) > now - age or key in self._unsent:
                continue
            appends.append(Append(lane.name, self.number, lane.previous, (), ()))
            if len(appends) == limit:
                break
        return appends

    def still_full(self, low: int) -> bool:
        """True while a lane that went over its budget holds more than `low` bytes."""
        self.full = {key for key in self.full if self._lanes[key].size > low}
        return bool(self.full)


def _key(lane: str) -> bytes:
    """The records' key of a lane."""
    return merchant_of_lane(lane).encode()
