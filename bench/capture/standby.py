"""Two relays of one source: how long nobody relays after the one at work is killed, and what a relay costs that waits."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import proc
from bench.capture.site import RELAYING, SHOP, CaptureSite
from bench.servers import servers
from bench.site import logged_at

STANDING_BY = "standing by"


@dataclass(frozen=True, slots=True)
class Idle:
    """CPU seconds per second with nothing to do: the relay's, PostgreSQL's, Kafka's."""

    cpu: dict[str, float]


def takeovers(site: CaptureSite, rounds: int, say: Callable[[str, int, int], None]) -> list[float]:
    """Kill -9 whoever relays, so many times; seconds until the other one does. The killed one is started again."""
    names = ["first", "second"]
    pair = site.supervisor(dict.fromkeys(names, f"pipeline capture run {SHOP}"))
    found: list[float] = []
    try:
        for name, mark in zip(names, (RELAYING, STANDING_BY), strict=True):
            begins = site.logged(name)
            pair.start(name)
            site.awaited(name, begins, mark)
        for number in range(rounds):
            say("takeover", number, rounds)
            working, waiting = names
            begun = site.logged(working), site.logged(waiting)
            killed = time.time()
            pair.signal(working, signal.SIGKILL)
            found.append(logged_at(site.awaited(waiting, begun[1], RELAYING)) - killed)
            site.awaited(working, begun[0], STANDING_BY)
            names.reverse()
    finally:
        pair.stop()
    return found


def idle(site: CaptureSite, seconds: float, say: Callable[[str, int, int], None]) -> Idle:
    """One relay, nothing written."""
    processes = {"relay": site.start_relay(), **servers()}
    say("idle", 0, 0)
    time.sleep(1.0)  # its start is over
    before, began = proc.cpu_seconds(processes), time.monotonic()
    time.sleep(seconds)
    spent, passed = proc.differences(proc.cpu_seconds(processes), before), time.monotonic() - began
    site.stop_relay()
    return Idle({name: value / passed for name, value in spent.items()})
