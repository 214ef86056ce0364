"""The same hands on both lane stores: to let time pass and to take things away that Redis might forget."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import redis

from pipeline.domain.routing import is_snapshot_lane, lane_queue
from pipeline.lanes.claim import TurnLimits, decode_entry
from pipeline.lanes.store import RedisLaneStore
from tests.fakes.lane_store import MemoryLaneStore

Store = MemoryLaneStore | RedisLaneStore
Lost = Literal["partition", "enqueued", "acknowledged", "incarnation"]
_DEADLINE = 10.0


class LaneLab(ABC):
    """A lane store and what may happen to it."""

    store: Store

    @abstractmethod
    def passes(self, milliseconds: int) -> None:
        """Time passes in the store."""

    @abstractmethod
    def ends(self, token: int) -> None:
        """The lease of a turn runs out."""

    @abstractmethod
    def hurries(self) -> None:
        """Every lane that waits is due."""

    @abstractmethod
    def loses_lease(self, token: int) -> None:
        """Redis forgets that a turn is leased."""

    @abstractmethod
    def loses_list(self, lane: str) -> None:
        """Redis forgets the events of a lane."""

    @abstractmethod
    def loses_tail(self, lane: str) -> None:
        """Redis forgets the last event of a lane."""

    @abstractmethod
    def rolls_back(self, lane: str) -> None:
        """Redis comes back as it was before the last event of a lane was added."""

    @abstractmethod
    def loses_field(self, lane: str, field: Lost) -> None:
        """Redis forgets one field of a lane."""

    @abstractmethod
    def loses_readiness(self, lane: str) -> None:
        """Redis forgets that a lane waits."""

    @abstractmethod
    def loses_everything(self) -> None:
        """Redis comes back empty."""

    def until(self, condition: Callable[[], bool]) -> None:
        """Time passes until `condition` holds; fails when it never does."""
        end = time.monotonic() + _DEADLINE
        while not condition():
            assert time.monotonic() < end, "it never came true"
            self.passes(5)


class MemoryLab(LaneLab):
    """The fake."""

    def __init__(self, limits: TurnLimits | None = None) -> None:
        self.store: MemoryLaneStore = MemoryLaneStore(limits)

    def passes(self, milliseconds: int) -> None:
        self.store.now += milliseconds

    def ends(self, token: int) -> None:
        if token in self.store.leases:
            self.store.leases[token] = self.store.now

    def hurries(self) -> None:
        self.store.due = dict.fromkeys(self.store.due, self.store.now)

    def loses_lease(self, token: int) -> None:
        del self.store.leases[token]

    def loses_list(self, lane: str) -> None:
        self.store.lanes[lane].entries.clear()

    def loses_tail(self, lane: str) -> None:
        self.store.lanes[lane].entries.pop()

    def rolls_back(self, lane: str) -> None:
        state = self.store.lanes[lane]
        state.entries.pop()
        state.enqueued = state.entries[-1].offset if state.entries else state.acknowledged

    def loses_field(self, lane: str, field: Lost) -> None:
        setattr(self.store.lanes[lane], field, None)

    def loses_readiness(self, lane: str) -> None:
        del self.store.due[lane]

    def loses_everything(self) -> None:
        self.store.lose()


class RedisLab(LaneLab):
    """The real store, on keys of its own."""

    def __init__(self, client: redis.Redis, namespace: str, limits: TurnLimits | None = None) -> None:
        self.store: RedisLaneStore = RedisLaneStore(client, namespace, limits)
        self._client = client
        self._namespace = namespace

    def passes(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)

    def ends(self, token: int) -> None:
        self._client.zadd(f"{self._namespace}:leases", {str(token): 1}, xx=True)

    def hurries(self) -> None:
        for room in ("ready", "retries", "snapshot_ready", "snapshot_retries"):
            key = f"{self._namespace}:{room}"
            for lane, _ in self._client.zscan_iter(key):
                self._client.zadd(key, {lane: 1}, xx=True)

    def loses_lease(self, token: int) -> None:
        self._client.zrem(f"{self._namespace}:leases", token)

    def loses_list(self, lane: str) -> None:
        self._client.delete(lane_queue(self._namespace, lane))

    def loses_tail(self, lane: str) -> None:
        self._client.rpop(lane_queue(self._namespace, lane))

    def rolls_back(self, lane: str) -> None:
        key, events = f"{self._namespace}:lane:{lane}", lane_queue(self._namespace, lane)
        self._client.rpop(events)
        tail = self._client.lindex(events, -1)
        assert tail is None or isinstance(tail, bytes)
        enqueued = self._client.hget(key, "acknowledged") if tail is None else decode_entry(tail).offset
        assert enqueued is not None
        self._client.hset(key, "enqueued", enqueued)

    def loses_field(self, lane: str, field: Lost) -> None:
        self._client.hdel(f"{self._namespace}:lane:{lane}", field)

    def loses_readiness(self, lane: str) -> None:
        room = "snapshot_ready" if is_snapshot_lane(lane) else "ready"
        self._client.zrem(f"{self._namespace}:{room}", lane)

    def loses_everything(self) -> None:
        keys = list(self._client.scan_iter(match=f"{self._namespace}*", count=1000))
        if keys:
            self._client.delete(*keys)
