"""Which partitions may flow, and what one lane may hold: bounds per lane, for this process, and for the lane store's memory.

A lane over its bound is detached. When half of what this process may have pending is, the bound is a sixteenth: rather
than everybody, those wait who have the most. Detached lanes share the other half, however many they are.

Each bound stops at its mark and lets go at half of it (the store: as soon as it is below), so that flow does not
flutter. Stopping is pausing partitions; polling goes on, or the group would take them away. Rows of snapshots have a
budget of their own, and stop at a lower mark of the store: a snapshot of any size takes no room from changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from redis import Redis, RedisError

from pipeline.bridge.offsets import Partition
from pipeline.errors import TransientError

STORE_LIMIT, SNAPSHOT_STORE_LIMIT = 0.7, 0.5
_ASK_EVERY = 1.0
_LEAST_SHARE = 64 * 1024


@dataclass(slots=True)
class _Bound:
    """How many bytes of some partitions may be pending."""

    limit: int
    over: bool = False
    pending: int = 0

    def look(self, partitions: Iterable[Partition]) -> bool:
        """True from the moment there are more, until there is no more than half of it."""
        self.pending = sum(partition.size for partition in partitions)
        self.over = self.pending > self.limit // (2 if self.over else 1)
        return self.over

    def lane(self, lane_bytes: int) -> int:
        """What one lane may hold, whose own bound is `lane_bytes`."""
        return lane_bytes // 16 if self.pending > self.limit // 2 else lane_bytes


class Flow:
    """Decides what is paused. `pressure` tells how full the lane store is, from 0 to 1.

    `pending_bytes` bounds what is pending of changes, `snapshot_bytes` of rows that snapshots read.
    """

    def __init__(
        self, *, lane_bytes: int, pending_bytes: int, snapshot_bytes: int, pressure: Callable[[], float]
    ) -> None:
        self._lane_bytes = lane_bytes
        self._changes = _Bound(pending_bytes)
        self._snapshots = _Bound(snapshot_bytes)
        self._pressure = pressure
        self._asked_at = float("-inf")
        self._used = 0.0

    def lane_limit(self, *, snapshot: bool) -> int:
        """The bytes above which a lane is detached."""
        return self._bound(snapshot).lane(self._lane_bytes)

    def fed_limit(self, lanes: int, *, snapshot: bool) -> int:
        """The bytes up to which each of so many detached lanes is fed."""
        bound = self._bound(snapshot)
        share = max(_LEAST_SHARE, bound.limit // 2 // max(1, lanes))
        return min(share, bound.lane(self._lane_bytes))

    def _bound(self, snapshot: bool) -> _Bound:
        return self._snapshots if snapshot else self._changes

    def paused(self, partitions: Iterable[Partition], now: float) -> frozenset[int]:
        """The partitions that must not be read now."""
        held = list(partitions)
        changes = [partition for partition in held if not partition.snapshot]
        snapshots = [partition for partition in held if partition.snapshot]
        self._ask(now)
        over = self._changes.look(changes) or self._used > STORE_LIMIT
        snapshots_over = self._snapshots.look(snapshots) or self._used > SNAPSHOT_STORE_LIMIT or over
        return self._stopped(changes, over) | self._stopped(snapshots, snapshots_over)

    def _stopped(self, partitions: Iterable[Partition], over: bool) -> frozenset[int]:
        return frozenset(partition.number for partition in partitions if over or partition.waiting)

    def _ask(self, now: float) -> None:
        if now < self._asked_at + _ASK_EVERY:
            return
        self._asked_at = now
        try:
            self._used = self._pressure()
        except TransientError:
            return  # a store that does not answer takes no events either; its last answer stands


def store_pressure(client: Redis) -> Callable[[], float]:
    """How much of Redis's maxmemory is used; 0 when it has no limit."""

    def pressure() -> float:
        try:
            memory = client.info("memory")
        except RedisError as error:
            raise TransientError(f"redis: {type(error).__name__}", hint="see REDIS_URL") from error
        return float(memory["used_memory"] / memory["maxmemory"]) if memory["maxmemory"] else 0.0

    return pressure
