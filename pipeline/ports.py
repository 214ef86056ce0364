"""The ports that have a fake beside the real thing, so that a crash machine can run the loops in memory.

``tests/contract`` runs one suite over both. Everything else is tested on the real service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import msgspec

from pipeline.consumer import Rejection, Turn
from pipeline.domain.sweep import Sweep


class Record(Protocol):
    """One record of the topic as it was read: nothing about key and value is checked yet.

    A protocol, so that what a reader makes of it passes as it is: another object per record would cost 1 µs.
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
    """What one poll brought, in offset order, how many more were left of these partitions, and how the assignment changed before."""

    records: Mapping[int, Sequence[Record]]
    assigned: frozenset[int] = frozenset()
    revoked: frozenset[int] = frozenset()
    left: Mapping[int, int] = field(default_factory=dict)


class RecordSource(Protocol):
    """The partitions of a consumer's topics that this member of its group holds.

    Its topics have equally many partitions, n, and are numbered through: 0 to n - 1 are those of changes, n to 2n - 1
    those of the rows that snapshots read.
    """

    def poll(self, timeout: float, most: int | None = None, resting: Set[int] = frozenset()) -> Polled:
        """Records of partitions that are not paused and do not rest, at most so many of each; waits up to `timeout` seconds."""

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


class SweepRecord(NamedTuple):
    """A sweep where a bridge has read it; ``partition`` is numbered through."""

    partition: int
    offset: int
    sweep: Sweep


class Tenure(NamedTuple):
    """A bridge's hold of a partition: its fence, and the highest incarnation that was drawn before it began."""

    fence: int
    drawn: int


class Append(msgspec.Struct, frozen=True, gc=False):
    """One lane's part of an ADD. ``previous`` is the last offset this bridge appended, None when it knows none.

    ``lane`` is the merchant's name, or ``s.<merchant>`` for rows that snapshots read. ``incarnation`` is None for a lane
    that has not answered yet. No offsets: an empty ADD, which only checks the chain and fetches what was acknowledged.
    """

    lane: str
    partition: int
    previous: int | None
    offsets: Sequence[int]
    values: Sequence[bytes]
    incarnation: int | None = None


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The lane after an ADD or a reset: its last offset, the last acknowledged one, which incarnation it is.

    ``damaged``: nothing was done, because what the bridge knows of the lane does not fit. ``parked``: why it is parked.
    """

    lane: str
    partition: int
    enqueued: int
    acknowledged: int
    incarnation: int
    damaged: bool = False
    parked: str | None = None


class News(NamedTuple):
    """What a lane has to tell: the last offset acknowledged in that incarnation, and why it is parked if it is."""

    lane: str
    incarnation: int
    acknowledged: int
    parked: str | None = None


class LaneStore(Protocol):
    """The bridge's side of the lanes of one consumer. Every call is one script: whole or not at all.

    Raises EpochLostError when the store was emptied since `epoch` was read, FencedError when a partition's fence is
    lower than one seen, StoreFullError when nothing can be appended now, TransientError when it does not answer
    (the script may have run: every call can be repeated).
    """

    def epoch(self) -> str:
        """The store's identity, set on first use; another one after it was emptied."""

    def add(self, epoch: str, tenures: Mapping[int, Tenure], appends: Sequence[Append]) -> Sequence[Appended]:
        """Append events to their lanes; offsets a lane already has are not appended twice.

        A lane that is not there is made, of the incarnation ``drawn``, when neither ``previous`` nor ``incarnation`` is
        known; a lane above ``drawn`` is not taken for the one that was meant.
        """

    def acknowledged(self, epoch: str, partition: int, limit: int = 1000) -> Sequence[News]:
        """News of lanes of `partition`, oldest first, as it was then; a higher fence forgets them. Taken, they are read."""

    def reset(
        self, epoch: str, fence: int, partition: int, lane: str, incarnation: int, base: int
    ) -> Appended:
        """Make a lane of a lower incarnation, or none, this one: empty, unclaimed, everything up to `base` acknowledged.

        One that is of this incarnation stays as it is, if it is sound; one of a higher is damage.
        """


Needs = Callable[[], Mapping[str, int]]
"""Lanes, and the first offset that each needs now."""


class Rereader(Protocol):
    """Reads partitions again from where it is told, beside the group: nothing is committed and nobody is disturbed."""

    def seek(self, partition: int, offset: int, needs: Needs | None = None) -> None:
        """Read from `offset` next; records of those who have `needs` may come from a copy when they passed retention."""

    def pause(self, partitions: frozenset[int]) -> None:
        """Exactly these of the partitions that are read are paused from now on."""

    def drop(self, partition: int) -> None:
        """Read that partition no more."""

    def poll(self, timeout: float, most: int | None = None) -> Mapping[int, Sequence[Record]]:
        """Records of partitions that are not paused, at most so many of each; waits up to `timeout` seconds for the first.

        What a copy has comes whole. PositionLostError when a position passed retention: of the partitions, and the lanes if only some, it names.
        """

    def position(self, partition: int) -> int:
        """The offset the next poll reads."""


State = Literal["running", "paused", "parked"]
Verb = Literal["pause", "resume", "release", "skip", "rewind", "resync"]


@dataclass(frozen=True, slots=True)
class DetachedRow:
    """A lane that does not hold its partition back: its records from `first` up to before `until` are not committed for.

    ``until`` is None while the live reader passes the lane over. Only ``running`` lanes are fed, by a cursor.
    """

    lane: str
    first: int
    until: int | None
    incarnation: int
    state: State
    reason: str


class Takeover(NamedTuple):
    """A partition taken over: the hold of it, and its detached lanes, every one open (``until`` is None)."""

    tenure: Tenure
    rows: Sequence[DetachedRow]


class Detachment(NamedTuple):
    """A lane to be detached, or detached anew, from `first` on; it gets a new incarnation.

    ``request`` is the one that this carries out: it ends in the same transaction.
    """

    lane: str
    first: int
    state: State
    reason: str
    request: int | None = None


class Request(NamedTuple):
    """What a person asks of a lane. ``offset``: where to rewind to, or the first record not to be skipped.

    ``expected`` is where the lane stood when they asked to skip: the same records, or none.
    """

    id: int
    partition: int
    lane: str
    verb: Verb
    reason: str
    offset: int | None = None
    expected: int | None = None


class Books(Protocol):
    """What a bridge writes into the control database. Each call is one transaction.

    FencedError when another bridge has taken the partition over since; TransientError when the database does not answer
    (it may have happened: the partition must be taken over again).
    """

    def take_over(self, partitions: Iterable[int]) -> Mapping[int, Takeover]:
        """Draw the next fence of each partition and open its detached lanes."""

    def detach(self, partition: int, fence: int, lanes: Sequence[Detachment]) -> Sequence[int]:
        """Write the lanes' rows, each with the next incarnation, never used before; returns those."""

    def hand_over(self, partition: int, fence: int, until: Mapping[str, int]) -> None:
        """From these offsets on the live reader feeds these lanes."""

    def advance(self, partition: int, fence: int, first: Mapping[str, int]) -> None:
        """Everything below these offsets is accepted."""

    def close(self, partition: int, fence: int, lanes: Sequence[str]) -> None:
        """Everything below ``until`` of these lanes is accepted: their rows go."""

    def requests(self, partitions: Iterable[int]) -> Sequence[Request]:
        """What people ask of lanes in these partitions, oldest first."""

    def answer(self, partition: int, fence: int, request: int, refusal: str) -> None:
        """A request ends without a change, for that reason."""

    def consumer_paused(self) -> bool:
        """True while a person holds the whole consumer."""

    def set_aside(self, rejections: Sequence[Rejection]) -> None:
        """Store what belongs to no lane; again: changes nothing."""

    def wait_sweeps(self, partition: int, fence: int, records: Sequence[SweepRecord]) -> None:
        """Remember sweeps before which only detached lanes have something left; again: changes nothing."""

    def waiting_sweeps(self, partition: int) -> Sequence[SweepRecord]:
        """Sweeps that wait for detached lanes of that partition, by offset."""

    def pass_sweeps(self, records: Sequence[SweepRecord]) -> None:
        """The sink has accepted everything before these records; again: changes nothing."""


class Sink(Protocol):
    """What a consumer's handler is to the lanes: takes a turn, decides each of its lanes, or raises."""

    def __call__(self, turn: Turn) -> None:
        """Write the turn's events; decide lanes by ``done``, ``retry``, ``reject``."""
