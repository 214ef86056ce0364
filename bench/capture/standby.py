"""Two relays of one source: how long nobody relays after the one at work is killed, and what a relay costs that waits."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
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
    """Kill -9 whoever relays, so many times; seconds until the standby does. Nobody starts the killed one again before."""
    found: list[float] = []
    with ExitStack() as stack:
        working = _start(site, stack, "relay_0", RELAYING)
        for number in range(rounds):
            say("takeover", number, rounds)
            name = f"relay_{number + 1}"
            waiting = _start(site, stack, name, STANDING_BY)
            begins, killed = site.logged(name), time.time()
            working.kill()
            found.append(logged_at(site.awaited(name, begins, RELAYING)) - killed)
            working = waiting
    return found


def _start(site: CaptureSite, stack: ExitStack, name: str, mark: str) -> subprocess.Popen[bytes]:
    """A relay outside of any supervisor, once its log says `mark`; killed when `stack` is left."""
    log = stack.enter_context((site.directory / "logs" / f"{name}.log").open("wb"))
    command = [sys.executable, "-m", "pipeline", "capture", "run", SHOP]
    process = subprocess.Popen(command, cwd=site.directory, env=site.environment, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)
    site.awaited(name, 0, mark)
    return process


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
