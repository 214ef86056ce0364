"""One topic and one consumer group in memory: the same answers as the broker, which the contract suites compare.

Tests decide who owns a partition (``give``), append records (``append``; ``published``: when), and lose them to
retention (``begin``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from pipeline.bridge.slices import Slices
from pipeline.errors import FencedError, PositionLostError, TransientError
from pipeline.ports import Committed, Needs, Polled, Record


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """One record."""

    offset: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class _Grant:
    """One assignment of a partition; a later one, even to the same member, makes it void."""

    member: MemoryMember
    number: int


class MemoryKafka:
    """A topic, and the offsets and assignments of one group."""

    def __init__(self, partitions: int) -> None:
        self.logs: dict[int, list[MemoryRecord]] = {partition: [] for partition in range(partitions)}
        self.begin = dict.fromkeys(self.logs, 0)
        self.positions: dict[int, int] = {}
        self.notes: dict[int, str] = {}
        self.available = True
        self.clock: Callable[[], float] = lambda: 0.0
        self.published: dict[int, list[float]] = {partition: [] for partition in range(partitions)}
        self._grants: dict[int, _Grant] = {}
        self._granted = 0

    def append(self, partition: int, key: bytes | None, value: bytes | None) -> int:
        """One more record; its offset."""
        offset = self.end(partition)
        self.logs[partition].append(MemoryRecord(offset, key, value))
        self.published[partition].append(self.clock())
        return offset

    def end(self, partition: int) -> int:
        """The offset after the last record."""
        return len(self.logs[partition])

    def give(self, partition: int, member: MemoryMember | None) -> None:
        """Assign a partition; its former owner learns of it when it polls."""
        self._granted += 1
        if member is None:
            self._grants.pop(partition, None)
        else:
            self._grants[partition] = _Grant(member, self._granted)

    def owner(self, partition: int) -> MemoryMember | None:
        """Who owns the partition now."""
        grant = self._grants.get(partition)
        return grant.member if grant else None

    def grants_of(self, member: MemoryMember) -> dict[int, int]:
        """The partitions of a member, each with the number of its grant."""
        return {p: grant.number for p, grant in self._grants.items() if grant.member is member}


@dataclass(eq=False)
class MemoryMember:
    """One member of the group: a RecordSource and its Offsets. A poll brings at most `most` records a partition."""

    kafka: MemoryKafka
    most: int = 1000
    _grants: dict[int, int] = field(default_factory=dict)
    _positions: dict[int, int] = field(default_factory=dict)
    _paused: frozenset[int] = frozenset()
    _slices: Slices = field(default_factory=Slices)

    def poll(self, timeout: float, most: int | None = None, resting: Set[int] = frozenset()) -> Polled:
        """See RecordSource."""
        self._answer()
        now = self.kafka.grants_of(self)
        revoked = frozenset(p for p, number in self._grants.items() if now.get(p) != number)
        assigned = frozenset(p for p, number in now.items() if self._grants.get(p) != number)
        self._grants = now
        for partition in assigned:
            if partition not in self.kafka.positions:
                raise PositionLostError(f"partition {partition} has no committed offset")
            self._positions[partition] = self.kafka.positions[partition]
        self._slices.forget(assigned | revoked)
        reading = sorted(now.keys() - self._paused - self._slices.partitions)
        found = {p: batch for p in reading if (batch := self._read(p))}
        records = self._slices.cut(found, most, self._paused | resting)
        left = {p: self.kafka.end(p) - batch[-1].offset - 1 for p, batch in records.items()}
        return Polled(records, assigned, revoked, left)

    def _read(self, partition: int) -> Sequence[Record]:
        position = self._positions[partition]
        if not self.kafka.begin[partition] <= position <= self.kafka.end(partition):
            raise PositionLostError(f"partition {partition}: offset {position} is out of range")
        batch = self.kafka.logs[partition][position : position + self.most]
        self._positions[partition] += len(batch)
        return batch

    def position(self, partition: int) -> int:
        """See RecordSource."""
        self._require(partition)
        kept = self._slices.first(partition)
        return self._positions[partition] if kept is None else kept

    def seek(self, partition: int, offset: int) -> None:
        """See RecordSource."""
        self._require(partition)
        self._slices.forget([partition])
        self._positions[partition] = offset

    def pause(self, partitions: frozenset[int]) -> None:
        """See RecordSource."""
        self._paused = partitions

    def ends(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """See RecordSource."""
        self._answer()
        return {partition: self.kafka.end(partition) for partition in partitions}

    def committed(self, partitions: frozenset[int]) -> Mapping[int, Committed]:
        """See Offsets."""
        self._answer()
        kafka = self.kafka
        return {
            p: Committed(kafka.positions[p], kafka.notes.get(p, ""))
            for p in partitions
            if p in kafka.positions
        }

    def commit(self, positions: Mapping[int, Committed]) -> None:
        """See Offsets."""
        self.commit_as(self.generation(), positions)

    def generation(self) -> Mapping[int, int]:
        """What a commit that is sent now says of the member: it is refused once a partition was given out anew."""
        return dict(self._grants)

    def commit_as(self, generation: Mapping[int, int], positions: Mapping[int, Committed]) -> None:
        """A commit of that generation arrives."""
        self._answer()
        now = self.kafka.grants_of(self)
        if any(p not in generation or generation[p] != now.get(p) for p in positions):
            raise FencedError("another member may own the partition")
        self.kafka.positions |= {p: place.offset for p, place in positions.items()}
        self.kafka.notes |= {p: place.note for p, place in positions.items()}

    def _require(self, partition: int) -> None:
        if partition not in self._grants:
            raise TransientError(f"partition {partition} has just been taken away")

    def _answer(self) -> None:
        if not self.kafka.available:
            raise TransientError("kafka: switched off")


@dataclass(eq=False)
class MemoryRereader:
    """A Rereader of the same topics. A poll brings at most `most` records a partition."""

    kafka: MemoryKafka
    most: int = 1000
    _positions: dict[int, int] = field(default_factory=dict)
    _paused: frozenset[int] = frozenset()
    _slices: Slices = field(default_factory=Slices)

    def seek(self, partition: int, offset: int, needs: Needs | None = None) -> None:
        """See Rereader."""
        self._slices.forget([partition])
        self._positions[partition] = offset

    def pause(self, partitions: frozenset[int]) -> None:
        """See Rereader."""
        self._paused = partitions

    def drop(self, partition: int) -> None:
        """See Rereader."""
        self._slices.forget([partition])
        self._positions.pop(partition, None)

    def position(self, partition: int) -> int:
        """See Rereader."""
        kept = self._slices.first(partition)
        return self._positions[partition] if kept is None else kept

    def close(self) -> None:
        """As one that has a connection."""

    def poll(self, timeout: float, most: int | None = None) -> Mapping[int, Sequence[Record]]:
        """See Rereader."""
        flowing = sorted(self._positions.keys() - self._paused - self._slices.partitions)
        if flowing and not self.kafka.available:
            raise TransientError("kafka: switched off")
        begin = self.kafka.begin
        if lost := {p: begin[p] for p in flowing if self._positions[p] < begin[p]}:
            raise PositionLostError(f"partitions {sorted(lost)}: offsets passed retention", first=lost)
        return self._slices.cut({p: batch for p in flowing if (batch := self._read(p))}, most, self._paused)

    def _read(self, partition: int) -> Sequence[Record]:
        position = self._positions[partition]
        batch = self.kafka.logs[partition][position : position + self.most]
        self._positions[partition] += len(batch)
        return batch
