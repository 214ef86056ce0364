"""One phase of watched traffic: healthy merchants at a steady rate, alone or beside one that makes trouble."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.lanes import watching
from bench.lanes.site import LaneSite
from bench.lanes.traffic import Traffic
from bench.lanes.watching import Sample
from devstack.process import wait_until

RATE = 300.0  # events/s of the healthy
_AHEAD = 3.0  # seconds from the start of a traffic process to its first event
_ARRIVAL = 300.0  # seconds that the last event may take
_GLANCE = 0.5


@dataclass(frozen=True, slots=True)
class Phase:
    """What was seen of the healthy, and apart from them of those in the partition of the one in trouble.

    `late`: by how many seconds the latest event left later than it should have; `seconds`: how long events were sent.
    """

    trouble: bool
    samples: list[Sample]
    own: list[Sample] = field(default_factory=list)
    late: float = 0.0
    seconds: float = 0.0

    @property
    def p99(self) -> float:
        """Milliseconds of the healthy."""
        return watching.p99(self.samples)


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic to be: `count` events at `rate` of these merchants. Watched unless it is the trouble itself."""

    merchants: Sequence[str]
    rate: float
    count: int
    watched: bool = True


@dataclass(slots=True)
class Stage:
    """Plays flows on a site whose bridge and worker run; every flow has a source of its own."""

    site: LaneSite
    say: Callable[[int, int], None]
    """Events seen, of how many."""
    _played: int = 0

    def play(self, flows: Mapping[str, Flow]) -> tuple[dict[str, list[Sample]], float]:
        """Send everything and wait until the watched have arrived: their samples by name, and how late the latest left."""
        begin = time.monotonic() + _AHEAD
        processes = {name: self._start(name, flow, begin) for name, flow in flows.items()}
        try:
            late = max(self._ended(process) for process in processes.values())
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
        sent = {name: watching.sent(self._log(name)) for name, flow in flows.items() if flow.watched}
        got = self._arrived(sent)
        return {name: watching.samples(places, got, begin) for name, places in sent.items()}, late

    def _start(self, name: str, flow: Flow, begin: float) -> subprocess.Popen[str]:
        self._played += 1
        log = str(self._log(name)) if flow.watched else ""
        traffic = Traffic(
            self.site.bootstrap, self.site.topic, f"traffic{self._played}", list(flow.merchants),
            flow.rate, flow.count, begin, self._played, log,
        )  # fmt: skip
        file = self.site.directory / f"{name}.json"
        file.write_bytes(msgspec.json.encode(traffic))
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "bench.lanes.traffic", str(file)],
            cwd=self.site.directory, env=self.site.environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _ended(self, process: subprocess.Popen[str]) -> float:
        while process.poll() is None:
            time.sleep(_GLANCE)
            self.site.pids()
        assert process.stdout is not None
        said = process.stdout.read()
        process.stdout.close()
        if process.returncode:
            raise RuntimeError(f"a traffic process ended with {process.returncode}")
        return float(said)

    def _arrived(self, sent: Mapping[str, dict[watching.Place, float]]) -> dict[watching.Place, float]:
        wanted = {place for places in sent.values() for place in places}
        got: dict[watching.Place, float] = {}

        def look() -> bool:
            got.update(watching.received(self.site.directory / "receipts"))
            there = len(wanted & got.keys())
            self.say(there, len(wanted))
            return there == len(wanted)

        wait_until(look, _ARRIVAL, _GLANCE)  # what is missing then is said by `samples`
        return got

    def _log(self, name: str) -> Path:
        return self.site.directory / f"{name}.sent"
