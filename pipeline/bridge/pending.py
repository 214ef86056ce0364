"""What of a lane is read but not yet accepted.

Offsets are kept together as they were read, packed to eight bytes each once they are appended: a bridge's memory hardly
shows how much waits. An acknowledgement is cumulative and costs per chunk, not per record.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import MutableSequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Chunk:
    """Records of one lane that were read together."""

    offsets: MutableSequence[int]
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

    def appended(self) -> None:
        """The lane holds the values now, and nothing more comes to this chunk: what stays are offsets."""
        self.offsets, self.values = array("q", self.offsets), []


@dataclass(slots=True)
class Lane:
    """One merchant's lane as this bridge knows it, under its name in the store.

    ``previous`` is the last offset in it, None when unknown; ``size`` the bytes of its pending events. ``unsent`` is
    the newest chunk; it has left ``chunks`` when the reply to its append was lost and the sink already accepted it.
    """

    name: str
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
            self.unsent.appended()
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
