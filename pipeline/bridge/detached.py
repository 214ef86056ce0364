"""A detached lane as the bridge that holds its partition knows it: how far it is accepted, and what feeds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

from pipeline.bridge.pending import Lane
from pipeline.ports import DetachedRow, State


@dataclass(slots=True)
class Detached:
    """One lane that does not hold its partition back.

    Everything below ``first`` is accepted; ``written`` is what the database has of it. ``lane`` is what a cursor feeds,
    up to before ``until``, from where on the live reader feeds the merchant's ordinary lane. ``synced``: the lane store has
    answered that it holds this incarnation. ``last`` is the last offset in the lane at the hand-over.
    """

    lane: Lane
    first: int
    written: int
    state: State
    reason: str
    until: int | None = None
    last: int = -1
    synced: bool = False
    full: bool = False

    @classmethod
    def of(cls, row: DetachedRow) -> Detached:
        """As the row says, before the lane store has answered."""
        lane = Lane(row.lane, incarnation=row.incarnation)
        return cls(lane, row.first, row.first, row.state, row.reason)

    @property
    def incarnation(self) -> int:
        """The incarnation of the lane."""
        assert self.lane.incarnation is not None  # a detached lane always has one
        return self.lane.incarnation

    @property
    def need(self) -> int:
        """The first offset that a cursor has to bring."""
        return self.first if self.lane.previous is None else max(self.first, self.lane.previous + 1)

    @property
    def finished(self) -> bool:
        """True when everything below ``until`` is accepted."""
        return self.until is not None and self.first >= self.until

    def wants_feeding(self, lane_bytes: int) -> bool:
        """True while a cursor may bring more: from when the lane is over `lane_bytes`, not until it is at half of it."""
        self.full = self.lane.size > lane_bytes // (2 if self.full else 1)
        return self.state == "running" and self.synced and self.until is None and not self.full

    def accept(self, offset: int) -> int:
        """The sink has accepted the lane up to `offset`; returns the bytes this frees."""
        first = offset + 1
        if self.until is not None:
            # The lane's last record may lie far below `until`: nothing of it is between.
            first = self.until if offset >= self.last else min(first, self.until)
        self.first = max(self.first, first)
        return self.lane.accept(offset)

    def hand_over(self, until: int) -> Lane:
        """From `until` on the live reader feeds the lane; returns the merchant's ordinary one."""
        previous = self.lane.previous
        assert previous is not None  # handed over only when synced
        self.until, self.last = until, previous
        if self.first > previous:
            self.first = max(self.first, until)
        return Lane(self.lane.name, previous, incarnation=self.lane.incarnation)


class Slowest:
    """Finds the detached lane that stands furthest back without looking at each; what ``first`` was is kept until then."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._heap: list[tuple[int, bytes]] = []

    def enter(self, key: bytes, first: int) -> None:
        """A lane is detached, or detached anew."""
        if first < self._known.get(key, first + 1):
            self._known[key] = first
            heappush(self._heap, (first, key))

    def first(self, lanes: Mapping[bytes, Detached]) -> int | None:
        """The smallest ``first`` of these, which are those that were entered and are detached still."""
        heap, known = self._heap, self._known
        while heap:
            first, key = heap[0]
            lane = lanes.get(key)
            if lane is None or known.get(key) != first:
                heappop(heap)
                if lane is None:
                    known.pop(key, None)
            elif lane.first > first:
                known[key] = lane.first
                heapreplace(heap, (lane.first, key))
            else:
                return first
        return None


def passed_retention(need: int, first: int) -> str:
    """Why a lane that needs offset `need` is parked when `first` is the first one left, and what a person can do."""
    return (
        f"offsets {need} to {first - 1} passed retention before they were accepted:"
        f" skip to {first}, then snapshot what this merchant has"
    )


@dataclass(frozen=True, slots=True)
class Need:
    """Why a lane is to be detached, or detached anew; ``state`` None: as it was."""

    reason: str
    state: State | None = None
