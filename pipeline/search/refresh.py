"""Refresh on demand: what a bulk wrote becomes searchable at once, at a pace that all workers keep together.

A writer asks; a thread of its process refreshes each index asked for, at most once per interval. The interval widens
with the time a refresh takes, so that refreshing never takes more than half of Elasticsearch's attention.

Several workers share the pace by one expiring key per index in Redis. That is an economy and not a guarantee: with
Redis away every process keeps the pace by itself.

What if the process dies between its bulk and its refresh? Before the turn is acknowledged, the turn comes again, finds
its documents stale and asks again. After that, the documents are safe but asked for by nobody: Elasticsearch's own
refresh (``mapping.REFRESH_INTERVAL``) shows them. No process has to live for it, which is why the request is not kept
in Redis.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import redis
import structlog
from elasticsearch import Elasticsearch
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline import failpoints
from pipeline.errors import PipelineError, SinkUnavailableError
from pipeline.search.client import translated

_REST_FACTOR = 2  # start to start, in units of the last refresh's duration
_AFTER_FAILURE = 1.0  # seconds


class Gate(Protocol):
    """Where the workers meet: ``enter`` gives, per index, the seconds to wait; 0 means "yours, now"."""

    def enter(self, indices: Collection[str], interval: float) -> Mapping[str, float]:
        """Ask for `indices`; those granted are barred for `interval` seconds, for everybody."""


class RedisGate:
    """One key per index that expires when the next refresh may start."""

    def __init__(self, client: redis.Redis, deployment: str) -> None:
        self._client = client
        self._prefix = f"{deployment}:search:refreshed:"

    @classmethod
    def connect(cls, url: str, deployment: str) -> RedisGate:
        """A gate with a connection of its own, which gives up quickly: nobody waits for an economy."""
        once = Retry(NoBackoff(), retries=0)
        client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=once)
        return cls(client, deployment)

    def enter(self, indices: Collection[str], interval: float) -> Mapping[str, float]:
        """As in Gate; with Redis away everything is granted."""
        pipe = self._client.pipeline(transaction=False)
        for index in indices:
            pipe.set(self._prefix + index, 1, nx=True, px=max(1, round(interval * 1000)))
            pipe.pttl(self._prefix + index)
        try:
            answers = pipe.execute()
        except redis.RedisError:
            return dict.fromkeys(indices, 0.0)
        pairs = zip(indices, answers[::2], answers[1::2], strict=True)
        return {index: 0.0 if granted else max(1, left) / 1000 for index, granted, left in pairs}


class Pace:
    """When an index may be refreshed next, by this process's own watch. Times are monotonic seconds."""

    def __init__(self, interval: float) -> None:
        self._floor = interval
        self.interval = interval
        self._opens: dict[str, float] = {}

    def opens(self, index: str) -> float:
        """The earliest time of the next refresh of `index`."""
        return self._opens.get(index, 0.0)

    def refreshed(self, indices: Collection[str], started: float, ended: float) -> None:
        """Take note of a refresh: the next starts an interval after this one started."""
        self.interval = max(self._floor, _REST_FACTOR * (ended - started))
        self._opens.update(dict.fromkeys(indices, started + self.interval))


def refresh_indices(client: Elasticsearch, names: Collection[str]) -> None:
    """Make everything written so far searchable; SinkUnavailableError when a shard did not."""
    with translated("refreshing"):
        answer = client.indices.refresh(index=sorted(names), filter_path="_shards.failed")
    if answer["_shards"]["failed"]:
        raise SinkUnavailableError("Elasticsearch, refreshing: a shard did not refresh")


class Refresher:
    """The thread that refreshes what is asked for. One per process; starts when first asked."""

    def __init__(self, refresh: Callable[[Collection[str]], None], gate: Gate, interval: float) -> None:
        self._refresh = refresh
        self._gate = gate
        self._pace = Pace(interval)
        self._due: dict[str, float] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def request(self, indices: Collection[str]) -> None:
        """Have `indices` refreshed: everything written before this call becomes searchable."""
        with self._changed:
            for index in indices:
                self._due.setdefault(index, self._pace.opens(index))
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="search-refresh", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Refresh what is still asked for, without waiting for its time, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while indices := self._next():
            barred = {} if self._closing else self._gate.enter(indices, self._pace.interval)
            granted = [index for index in indices if not barred.get(index)]
            self._again({index: wait for index, wait in barred.items() if wait})
            if granted:
                self._refresh_now(granted)

    def _next(self) -> list[str]:
        """Waits for indices whose time has come and takes them off the list; empty at the end."""
        with self._changed:
            while not (indices := self._ready()) and not self._closing:
                soonest = min(self._due.values(), default=None)
                self._changed.wait(None if soonest is None else soonest - time.monotonic())
            for index in indices:
                del self._due[index]
            return indices

    def _ready(self) -> list[str]:
        now = time.monotonic()
        return [index for index, at in self._due.items() if at <= now or self._closing]

    def _again(self, waits: Mapping[str, float]) -> None:
        now = time.monotonic()
        with self._changed:
            for index, wait in waits.items():
                self._due[index] = now + wait

    def _refresh_now(self, indices: Collection[str]) -> None:
        started = time.monotonic()
        try:
            self._refresh(indices)
        except PipelineError as error:
            structlog.get_logger().warning("search refresh failed", error=str(error))
            if not self._closing:
                self._again(dict.fromkeys(indices, _AFTER_FAILURE))
            return
        self._pace.refreshed(indices, started, time.monotonic())
        failpoints.passes("search.refreshed")
