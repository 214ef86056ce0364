"""What is read but not yet accepted: per lane its pending offsets, per partition the smallest of them.

Offsets are kept as the lists in which they were read, so that a record costs no object of its own; an
acknowledgement is cumulative and costs per list, not per record.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from pipeline.bridge.doubles import Doubles
from pipeline.consumer import Rejection
from pipeline.domain.event import merchant_of_key
from pipeline.domain.routing import partition_of
from pipeline.ports import Append, Record


@dataclass(slots=True)
class Chunk:
    """Records of one lane that were read together; ``values`` is emptied once they are appended."""

    offsets: list[int]
    values: list[bytes]
    size: int
    read_at: float
    first: int = 0

    @property
    def head(self) -> int:
        """The smallest offset that is not accepted."""
        return self.offsets[self.first]

    def accept(self, offset: int) -> int:
        """Everything up to `offset` is accepted; returns the bytes this frees, by the chunk's mean size."""
        left = len(self.offsets) - self.first
        first = bisect_right(self.offsets, offset, self.first)
        freed = self.size * (first - self.first) // left
        self.size -= freed
        self.first = first
        return freed

    def extend(self, offsets: list[int], values: list[bytes], size: int) -> None:
        """Records of the same lane, read later."""
        self.offsets += offsets
        self.values += values
        self.size += size


@dataclass(slots=True)
class Lane:
    """One merchant's lane as this bridge knows it.

    ``previous`` is the last offset in it, None when unknown; ``size`` the bytes of its pending events. ``unsent`` is
    the newest chunk; it has left ``chunks`` when the reply to its append was lost and the sink already accepted it.
    """

    merchant: str
    previous: int | None = None
    chunks: deque[Chunk] = field(default_factory=deque)
    unsent: Chunk | None = None
    size: int = 0
    answered_at: float = 0.0

    @property
    def head(self) -> int | None:
        """The smallest offset that is not accepted, or None when nothing is pending."""
        return self.chunks[0].head if self.chunks else None

    def receive(self, offsets: list[int], values: list[bytes], now: float) -> None:
        """Records to append next, in order, after those still unsent."""
        size = sum(map(len, values))
        self.size += size
        if self.unsent is None:
            self.unsent = Chunk(offsets, values, size, now)
            self.chunks.append(self.unsent)
            return
        if not self.chunks:
            self.unsent.first, self.unsent.size = len(self.unsent.offsets), 0
            self.chunks.append(self.unsent)
        self.unsent.extend(offsets, values, size)

    def appended(self, enqueued: int, now: float) -> None:
        """The lane has answered: it holds everything received, and ends at `enqueued`."""
        self.previous, self.answered_at = enqueued, now
        if self.unsent is not None:
            self.unsent.values = []
            self.unsent = None

    def accept(self, offset: int) -> int:
        """Everything up to `offset` is accepted; returns the bytes this frees."""
        freed = 0
        while self.chunks and self.chunks[0].offsets[-1] <= offset:
            freed += self.chunks.popleft().size
        if self.chunks and self.chunks[0].head <= offset:
            freed += self.chunks[0].accept(offset)
        self.size -= freed
        return freed


class Partition:
    """Everything this bridge knows about one partition since it took it over with `fence` at `committed`."""

    def __init__(
        self, number: int, partitions: int, fence: int, committed: int, doubles: Doubles | None = None
    ) -> None:
        self.number = number
        self.fence = fence
        self.committed = committed
        self.doubles = doubles or Doubles(committed, {})
        self.position = committed
        self.size = 0
        self.strange: list[Rejection] = []
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
        """Take the next records, by merchant; what belongs to no lane waits to be set aside, doubles go."""
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
        lane = self._lane(key)
        if lane is None or key is None:
            self._set_aside(offsets, values, self._strangeness(key))
            return
        if None in values:
            offsets, values = self._without_empty(lane.merchant, offsets, values)
        present = [value for value in values if value is not None]
        if present:
            self._enter(key, lane, offsets, present, now)
            if lane.size > lane_bytes:
                self.full.add(key)

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

    def _lane(self, key: bytes | None) -> Lane | None:
        if key is None:
            return None
        lane = self._lanes.get(key)
        if lane is None:
            merchant = merchant_of_key(key)
            if merchant is None or partition_of(merchant, self._partitions) != self.number:
                return None
            lane = self._lanes[key] = Lane(merchant)
        return lane

    def _strangeness(self, key: bytes | None) -> str:
        merchant = merchant_of_key(key)
        if merchant is None:
            return f"the key {key[:70]!r} is no merchant id" if key is not None else "a record without key"
        right = partition_of(merchant, self._partitions)
        return f'merchant "{merchant}" belongs to partition {right}, not {self.number}'

    def _set_aside(
        self, offsets: Sequence[int], values: Sequence[bytes | None], reason: str, merchant: str = ""
    ) -> None:
        self.strange += [
            Rejection(merchant, self.number, offset, reason, value or b"")
            for offset, value in zip(offsets, values, strict=True)
        ]

    def appends(self) -> Iterator[Append]:
        """What waits to be appended: one part per lane."""
        for lane in self._unsent.values():
            chunk = lane.unsent
            assert chunk is not None  # _unsent holds exactly the lanes that have one
            yield Append(lane.merchant, self.number, lane.previous, chunk.offsets, chunk.values)

    def appended(self, merchant: str, enqueued: int, now: float) -> None:
        """That lane has answered: it holds everything received for it, and ends at `enqueued`."""
        key = merchant.encode()
        self._unsent.pop(key, None)
        self._lanes[key].appended(enqueued, now)

    def accept(self, merchant: str, offset: int) -> None:
        """The sink has accepted that lane up to `offset`."""
        key = merchant.encode()
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
        """The smallest offset that no sink has accepted and that is not set aside, unsent ones included."""
        heads = self._heads
        while heads and not self._is_head(*heads[0]):
            heappop(heads)
        smallest = [heads[0][0]] if heads else []
        smallest += [rejection.offset for rejection in self.strange]
        return min(smallest, default=None)

    def _is_head(self, offset: int, key: bytes) -> bool:
        lane = self._pending.get(key)
        return lane is not None and lane.head == offset

    def base_of(self, merchant: str) -> int:
        """The last offset of a lane below which everything is accepted."""
        head = self._lanes[merchant.encode()].head
        return (self.position if head is None else head) - 1

    def overdue(self, now: float, age: float, limit: int) -> list[Append]:
        """Empty appends for lanes whose oldest pending event is `age` seconds old and that were silent since."""
        appends: list[Append] = []
        for key, lane in self._pending.items():
            if max(lane.chunks[0].read_at, lane.answered_at) > now - age or key in self._unsent:
                continue
            appends.append(Append(lane.merchant, self.number, lane.previous, (), ()))
            if len(appends) == limit:
                break
        return appends

    def still_full(self, low: int) -> bool:
        """True while a lane that went over its budget holds more than `low` bytes."""
        self.full = {key for key in self.full if self._lanes[key].size > low}
        return bool(self.full)
