"""One round: rows are committed while the relay is stopped; then it starts, and the clock runs until all has arrived."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from bench import proc
from bench.deployment import Deployment
from bench.load import TRANSACTION, Changes, chunks, perform
from bench.servers import servers
from bench.sinks import Sinks
from devstack.process import wait_until

Say = Callable[[str, int], None]
"""What happens now, and how many changes have come so far."""

_PATIENCE = 900.0  # seconds for everything to arrive
_GLANCE, _COUNT = 0.05, 1.0  # seconds between questions: to the index, and to Kafka for the progress shown


@dataclass(frozen=True, slots=True)
class Drain:
    """What one round measured. Seconds count from the relay's readiness; `cpu` holds CPU seconds by process.

    `searchable`: every change is found by search and accepted; `accepted`, `loaded`: by the warehouse consumer, and in
    the warehouse's tables. `cpu` is from readiness to `loaded`, `cpu_drain` to `searchable`; `busy_drain` is the whole
    machine's to `searchable`. `start_up`: from the relay's start to its readiness. `peak`: bytes by process.
    """

    rows: int
    start_up: float
    searchable: float
    accepted: float
    loaded: float
    cpu: dict[str, float]
    cpu_drain: dict[str, float]
    busy_drain: float
    peak: dict[str, int] = field(default_factory=dict)

    @property
    def events_per_s(self) -> float:
        """Changes per second, from the relay's readiness until the last one is searchable."""
        return self.rows / self.searchable

    @property
    def events_per_s_with_start_up(self) -> float:
        """The same from the relay's start."""
        return self.rows / (self.searchable + self.start_up)


def commit(url: str, changes: Changes, rows: int, say: Say) -> None:
    """Commit so many changes, as fast as it goes."""
    written = 0
    with psycopg.connect(url) as session:
        for chunk in chunks(changes.take(rows), TRANSACTION):
            perform(session, chunk)
            written += len(chunk)
            say("committing", written)


def drain(deployment: Deployment, sinks: Sinks, changes: Changes, rows: int, say: Say) -> Drain:
    """Commit, start the relay, wait for everything. The rest of the deployment must run, and have nothing to do."""
    before = sinks.published()
    commit(deployment.writer_url, changes, rows, say)
    started, ready = deployment.start_relay()
    watch = _Watch(deployment, sinks, changes, before, rows, say)
    result = watch.run(ready, start_up=ready - started)
    deployment.stop_relay()
    return result


class _Watch:
    """Asks the sinks, cheaply while most is missing and exactly at the end."""

    def __init__(
        self, deployment: Deployment, sinks: Sinks, changes: Changes, before: int, rows: int, say: Say
    ) -> None:
        self._deployment, self._sinks, self._say = deployment, sinks, say
        self._before, self._rows = before, rows
        self._end, self._last, self._expected = before + rows, changes.last, changes.expected
        self._counted = 0.0
        self._accepted: float | None = None

    def run(self, ready: float, start_up: float) -> Drain:
        pids = {**self._deployment.pids(), **servers()}
        busy, cpu = proc.machine_seconds(), proc.cpu_seconds(pids)
        self._await("indexing", lambda: self._sinks.shows(self._last))
        self._await("indexing", lambda: self._sinks.searchable() == self._expected)
        self._await("committing offsets", lambda: self._sinks.has_accepted("search", self._end))
        searchable, busy_drain = time.time() - ready, proc.machine_seconds() - busy
        cpu_drain = proc.differences(proc.cpu_seconds(pids), cpu)
        self._await("staging", self._staged, 0.25)
        self._await("loading", self._sinks.loaded, 0.25)
        loaded, total = time.time() - ready, proc.differences(proc.cpu_seconds(pids), cpu)
        peak = {name: proc.peak_bytes(pid) for name, pid in {**self._deployment.pids(), **servers()}.items()}
        self._require_equal()
        accepted = self._accepted or loaded
        return Drain(
            self._rows, start_up, searchable, accepted - ready, loaded, total, cpu_drain, busy_drain, peak
        )

    def _await(self, what: str, condition: Callable[[], bool], pause: float = _GLANCE) -> None:
        def look() -> bool:
            self._count(what)
            return condition()

        if not wait_until(look, _PATIENCE, pause):
            raise TimeoutError(f"{what}: not over after {_PATIENCE:.0f} s")

    def _count(self, what: str) -> None:
        now = time.monotonic()
        if now - self._counted > _COUNT:
            self._counted = now
            self._staged()
            self._say(what, self._sinks.accepted("search") - self._before)

    def _staged(self) -> bool:
        if self._accepted is None and self._sinks.has_accepted("warehouse", self._end):
            self._accepted = time.time()
        return self._accepted is not None

    def _require_equal(self) -> None:
        found = self._sinks.in_warehouse()
        if found != self._expected:
            raise RuntimeError(
                f"the warehouse shows {found}, not {self._expected}: nothing measured is of use"
            )
