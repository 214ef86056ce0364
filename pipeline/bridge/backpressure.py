"""Which partitions may flow: bounds per lane, for this process, and for the lane store's memory.

Each bound stops at its mark and lets go at half of it (the store: as soon as it is below), so that flow does not
flutter. Stopping is pausing partitions; polling goes on, or the group would take them away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from redis import Redis, RedisError

from pipeline.bridge.offsets import Partition
from pipeline.errors import TransientError

STORE_LIMIT = 0.7
_ASK_EVERY = 1.0


class Flow:
    """Decides what is paused. `pressure` tells how full the lane store is, from 0 to 1."""

    def __init__(self, *, lane_bytes: int, pending_bytes: int, pressure: Callable[[], float]) -> None:
        self.lane_bytes = lane_bytes
        self._pending_bytes = pending_bytes
        self._pressure = pressure
        self._asked_at = float("-inf")
        self._store_full = False
        self._process_full = False

    def paused(self, partitions: Iterable[Partition], now: float) -> frozenset[int]:
        """The partitions that must not be read now."""
        held = list(partitions)
        if self._over(held, now):
            return frozenset(partition.number for partition in held)
        return frozenset(
            partition.number
            for partition in held
            if partition.waiting or partition.still_full(self.lane_bytes // 2)
        )

    def _over(self, held: list[Partition], now: float) -> bool:
        pending = sum(partition.size for partition in held)
        self._process_full = pending > self._pending_bytes // (2 if self._process_full else 1)
        if now >= self._asked_at + _ASK_EVERY:
            self._asked_at = now
            self._ask()
        return self._process_full or self._store_full

    def _ask(self) -> None:
        try:
            self._store_full = self._pressure() > STORE_LIMIT
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
