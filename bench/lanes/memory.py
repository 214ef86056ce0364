"""The most memory a bridge holds before so many records that wait, when nobody takes anything from the lanes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from bench import proc
from bench.lanes import publishing
from bench.lanes.events import Envelopes, names, zipf
from bench.lanes.site import GROUPED, LaneSite
from example.fresh import empty_lanes
from pipeline.lanes.store import connect
from pipeline.telemetry import heartbeats

Say = Callable[[str, int, int], None]
MERCHANTS = 1000
_STILL = 15.0  # seconds without anything more read
_PATIENCE = 600.0
_GLANCE = 1.0


def measure(site: LaneSite, sizes: tuple[int, ...], say: Say) -> dict[int, int]:
    """Bytes (VmHWM) of a fresh bridge by the records that waited, each time from emptied lanes."""
    envelopes, there, found = Envelopes("shop"), 0, {}
    for size in sizes:
        more = map(envelopes.of, zipf(names(MERCHANTS), size - there, size))
        publishing.publish(site.bootstrap, site.topic, more, lambda done: say("memory: publishing", done, 0))
        there = size
        empty_lanes(site.settings)
        pid = site.start_bridge(GROUPED)
        _await_still(site, pid, partial(_filling, say, size))
        found[size] = proc.peak_bytes(pid)
        site.end("bridge")
    return found


def _filling(say: Say, of: int, done: int) -> None:
    say("memory: a bridge fills its lanes", done, of)


def _await_still(site: LaneSite, pid: int, say: Callable[[int], None]) -> None:
    """Wait until the bridge has read nothing for a while, by its heartbeat."""
    began = changed = time.monotonic()
    records = -1
    with connect(site.redis_url) as client:
        while time.monotonic() - changed < _STILL:
            if time.monotonic() - began > _PATIENCE:
                raise TimeoutError(f"the bridge still reads after {_PATIENCE:.0f} s")
            beats = [one for one in heartbeats(client, site.NAME) if one.pid == pid]
            now = int(beats[0].metrics["records"]) if beats else records
            if now != records or records <= 0:
                records, changed = now, time.monotonic()
            say(max(0, records))
            time.sleep(_GLANCE)
