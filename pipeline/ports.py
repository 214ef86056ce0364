"""The four ports that have a fake beside the real thing, so that a crash machine can run the loops in memory.

``tests/contract`` runs one suite over both. Everything else is tested on the real service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.consumer import Turn


class Record(Protocol):
    """One record of the topic as its client gives it: nothing about key and value is checked yet.

    A protocol, so that the client's own object passes as it is: another one per record would cost 1 µs.
    """

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def key(self) -> bytes | None:
        """The raw key: the merchant."""

    @property
    def value(self) -> bytes | None:
        """The raw value: an envelope."""


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought: records in offset order per partition, and how the assignment changed before them."""

    records: Mapping[int, Sequence[Record]]
    assigned: frozenset[int] = frozenset()
    revoked: frozenset[int] = frozenset()


class RecordSource(Protocol):
    """The partitions of a consumer's topics that this member of its group holds.

    Its topics have equally many partitions, n, and are numbered through: 0 to n - 1 are those of changes, n to 2n - 1
    those of the rows that snapshots read.
    """

    def poll(self, timeout: float) -> Polled:
        """Records of partitions that are not paused; waits up to `timeout` seconds for the first."""

    def position(self, partition: int) -> int:
        """The offset the next poll reads."""

    def seek(self, partition: int, offset: int) -> None:
        """Read from `offset` next."""

    def pause(self, partitions: frozenset[int]) -> None:
        """Exactly these partitions are paused from now on; the others flow."""

    def ends(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """The offset after the last record of each partition."""


class Committed(NamedTuple):
    """A committed position: the next offset to read, and a note about what had been read before it."""

    offset: int
    note: str = ""


class Offsets(Protocol):
    """The committed position of one consumer, per partition."""

    def committed(self, partitions: frozenset[int]) -> Mapping[int, Committed]:
        """Positions of those partitions that have one."""

    def commit(self, positions: Mapping[int, Committed]) -> None:
        """Commit; FencedError when a partition is no longer ours, TransientError when Kafka does not answer."""


@dataclass(frozen=True, slots=True)
class Append:
    """One lane's part of an ADD. ``previous`` is the last offset this bridge appended, None when it knows none.

    ``lane`` is the merchant's name, or ``s.<merchant>`` for rows that snapshots read.
    No offsets: an empty ADD, which only checks the chain and fetches what was acknowledged.
    """

    lane: str
    partition: int
    previous: int | None
    offsets: Sequence[int]
    values: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Appended:
    """The lane after an ADD: last offset in it, last offset acknowledged. ``damaged``: its chain is broken."""

    lane: str
    partition: int
    enqueued: int
    acknowledged: int
    damaged: bool = False


class LaneStore(Protocol):
    """The bridge's side of the lanes of one consumer. Every call is one script: whole or not at all.

    Raises EpochLostError when the store was emptied since `epoch` was read, FencedError when a partition's fence is
    lower than one seen, StoreFullError when nothing can be appended now, TransientError when it does not answer
    (the script may have run: every call can be repeated).
    """

    def epoch(self) -> str:
        """The store's identity, set on first use; another one after it was emptied."""

    def add(self, epoch: str, fences: Mapping[int, int], appends: Sequence[Append]) -> Sequence[Appended]:
        """Append events to their lanes; offsets a lane already has are not appended twice."""

    def acknowledged(self, epoch: str, partition: int, limit: int = 1000) -> Sequence[tuple[str, int]]:
        """Lanes of `partition` with news, each with its last acknowledged offset. Taking them marks them read."""

    def reset(self, epoch: str, fence: int, partition: int, lane: str, base: int) -> None:
        """Empty a damaged lane: nothing claimed, everything up to `base` counts as enqueued and acknowledged."""


class Sink(Protocol):
    """What a consumer's handler is to the lanes: takes a turn, decides each of its lanes, or raises."""

    def __call__(self, turn: Turn) -> None:
        """Write the turn's events; decide lanes by ``done``, ``retry``, ``reject``."""
