"""What of a lane is read but not yet accepted.

Offsets are kept together as they were read, those of half a minute in one chunk, packed to two or four bytes each once they are
appended, as distances from the chunk's first: a bridge's memory hardly shows how much waits. An acknowledgement is cumulative
and costs per chunk, not per record.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import ItemsView, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from pipeline.ports import Record

_FEW = 10
_NEAREST = "H"
_FAR = {_NEAREST: 2**16, "I": 2**32, "Q": 2**64}  # distances below it have two bytes, four, eight
_TOGETHER = 30.0  # seconds: the age of a chunk is that of its first record, too old by so much of the 300 of a slow lane
Groups = Mapping[bytes | None, tuple[list[int], list[bytes | None]]]


@dataclass(slots=True)
class Chunk:
    """Records of one lane that were read together; `offsets` are counted from `base`."""

    offsets: list[int] | array[int]
    values: Sequence[bytes]
    size: int
    read_at: float
    first: int = 0
    base: int = 0

    @property
    def head(self) -> int:
        """The smallest offset that is not accepted."""
        return self.base + self.offsets[self.first]

    @property
    def last(self) -> int:
        """The greatest offset."""
        return self.base + self.offsets[-1]

    def accept(self, offset: int) -> int:
        """Everything up to `offset` is accepted; returns the bytes this frees, by the chunk's mean size."""
        left = len(self.offsets) - self.first
        first = bisect_right(self.offsets, offset - self.base, self.first)
        freed = self.size * (first - self.first) // left
        self.size -= freed
        self.first = first
        return freed

    def extend(self, offsets: list[int], values: list[bytes], size: int) -> None:
        """Records of the same lane, read later."""
        self.offsets.extend(offsets)
        self.values = [*self.values, *values]
        self.size += size

    def appended(self) -> None:
        """The lane holds the values now, and nothing more is read for this chunk: what stays are offsets."""
        # Where merchants are many, most chunks have one record: a quarter less for those.
        base, last = self.offsets[0], self.offsets[-1]
        kind = _NEAREST if last == base else next(kind for kind, far in _FAR.items() if last - base < far)
        self.offsets, self.base, self.values = array(kind, [one - base for one in self.offsets]), base, ()

    def join(self, later: Chunk) -> bool:
        """Records of the same lane that were read soon after; both are appended. False when they lie too far away."""
        assert isinstance(self.offsets, array)
        if later.last - self.base >= _FAR[self.offsets.typecode]:
            return False
        distance = later.base - self.base
        self.offsets.extend([distance + one for one in later.offsets])
        self.size += later.size
        return True


@dataclass(slots=True)
class Lane:
    """One merchant's lane as this bridge knows it, under its name in the store.

    ``previous`` is the last offset in it and ``incarnation`` which lane of that name it is, None when unknown; ``size`` the bytes of its pending events. ``unsent`` is
    the newest chunk; it has left ``chunks`` when the reply to its append was lost and the sink already accepted it.
    """

    name: str
    previous: int | None = None
    chunks: list[Chunk] = field(default_factory=list)
    unsent: Chunk | None = None
    size: int = 0
    answered_at: float = 0.0
    incarnation: int | None = None

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
            self.unsent.appended()
            self._join_newest()
            self.unsent = None

    def _join_newest(self) -> None:
        """Lanes that wait for long would have a chunk of each round: many times what their offsets need."""
        if len(self.chunks) < 2:
            return
        older, newest = self.chunks[-2], self.chunks[-1]
        if newest.read_at - older.read_at < _TOGETHER and older.join(newest):
            self.chunks.pop()

    def accept(self, offset: int) -> int:
        """Everything up to `offset` is accepted; returns the bytes this frees."""
        freed = 0
        while self.chunks and self.chunks[0].last <= offset:
            freed += self.chunks.pop(0).size
        if self.chunks and self.chunks[0].head <= offset:
            freed += self.chunks[0].accept(offset)
        self.size -= freed
        return freed


class PendingLanes:
    """Lanes by their records' key that have events which no sink has accepted, and the smallest offset of all."""

    def __init__(self) -> None:
        self._lanes: dict[bytes, Lane] = {}
        self._heads: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._lanes)

    def __contains__(self, key: bytes) -> bool:
        return key in self._lanes

    def items(self) -> ItemsView[bytes, Lane]:
        """Every lane."""
        return self._lanes.items()

    def enter(self, key: bytes, lane: Lane) -> None:
        """A lane that had nothing pending has something."""
        assert lane.head is not None  # it has just received records
        self._lanes[key] = lane
        heappush(self._heads, (lane.head, key))

    def forget(self, key: bytes) -> None:
        """Nothing of that lane is pending here."""
        self._lanes.pop(key, None)

    def accept(self, key: bytes, offset: int) -> int:
        """The sink has accepted that lane up to `offset`; returns the bytes this frees."""
        lane = self._lanes.get(key)
        if lane is None:
            return 0
        before = lane.head
        if before is not None and before > offset:
            return 0
        freed = lane.accept(offset)
        head = lane.head
        if head is None:
            del self._lanes[key]
        elif head != before:
            heappush(self._heads, (head, key))
        return freed

    def head(self, key: bytes) -> int | None:
        """The smallest pending offset of that lane."""
        lane = self._lanes.get(key)
        return None if lane is None else lane.head

    def slow(self, below: int, before: float) -> list[bytes]:
        """Lanes whose oldest event lies below that offset and was read before that time.

        None when that is most of them: then it is not they who are slow but the sink.
        """
        slow = [
            key
            for key, lane in self._lanes.items()
            if lane.chunks[0].head < below and lane.chunks[0].read_at < before
        ]
        return slow if len(slow) <= max(_FEW, len(self._lanes) // 2) else []

    def smallest(self) -> int | None:
        """The smallest of all, or None when nothing is pending."""
        heads = self._heads
        while heads and self.head(heads[0][1]) != heads[0][0]:
            heappop(heads)
        return heads[0][0] if heads else None


def grouped(records: Iterable[Record]) -> Groups:
    """Records by their key, each key's offsets and values in order."""
    groups: dict[bytes | None, tuple[list[int], list[bytes | None]]] = {}
    for record in records:
        group = groups.get(record.key)
        if group is None:
            group = groups[record.key] = ([], [])
        group[0].append(record.offset)
        group[1].append(record.value)
    return groups
