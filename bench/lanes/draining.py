"""One drain: everything lies in the topic, a bridge begins, and CPU is read until a sink has accepted all of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from bench import proc
from bench.lanes.site import LaneSite
from bench.servers import servers
from devstack.process import wait_until
from pipeline.control import detached
from pipeline.control.database import ControlDatabase

PATIENCE = 900.0  # seconds
_GLANCE = 0.25
SERVERS = ("redis", "kafka", "postgres")


@dataclass(frozen=True, slots=True)
class Drained:
    """`cpu`: CPU seconds by process. All of it counts: ours, and the servers' with their children."""

    events: int
    seconds: float
    cpu: dict[str, float]

    @property
    def us(self) -> float:
        """CPU microseconds per event."""
        return sum(self.cpu.values()) / self.events * 1e6

    def us_of(self, name: str) -> float:
        """Those of one process; 0 when it had no part."""
        return self.cpu.get(name, 0.0) / self.events * 1e6

    @property
    def events_per_s(self) -> float:
        """On the clock."""
        return self.events / self.seconds


class Meter:
    """Reads CPU from the moment it is made."""

    def __init__(self, ours: dict[str, int]) -> None:
        self._pids = {**ours, **{name: pid for name, pid in servers().items() if name in SERVERS}}
        self._began, self._before = time.monotonic(), proc.cpu_seconds(self._pids)

    def read(self, events: int) -> Drained:
        """What was used since."""
        seconds, after = time.monotonic() - self._began, proc.cpu_seconds(self._pids)
        return Drained(events, seconds, proc.differences(after, self._before))


def drain(site: LaneSite, consumer: str, events: int, say: Callable[[int], None]) -> Drained:
    """Start the consumer's bridge and wait until its worker, which runs, has accepted the `events` that lie in the topic.

    The bridge is ended again.
    """
    end = sum(site.end_offsets().values())
    site.start_bridge(consumer)
    meter = Meter(site.pids())
    await_accepted(site, consumer, end, events, say)
    found = meter.read(events)
    site.end("bridge")
    return found


def await_accepted(site: LaneSite, consumer: str, end: int, events: int, say: Callable[[int], None]) -> None:
    """Wait until the consumer's committed offsets add up to `end`, and no detached lane has anything left below them.

    TimeoutError after fifteen minutes.
    """
    url = site.settings.environment.control_database_url.get_secret_value()
    with closing(site.view(consumer)) as view, closing(ControlDatabase(url)) as database:

        def over() -> bool:
            committed = view.committed()
            accepted = sum(committed.values())
            say(max(0, accepted - end + events))
            ends = {(site.topic, partition): at for partition, at in committed.items()}
            return accepted >= end and not detached.unaccepted(database, consumer, ends)

        if not wait_until(over, PATIENCE, _GLANCE):
            raise TimeoutError(f"{consumer}: not drained after {PATIENCE:.0f} s")
