"""COMMIT to Kafka at a steady rate: from the COMMIT's answer in a writer process to first sight in a consumer process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import msgspec

from bench import proc
from bench.capture.site import SHOP, CaptureSite
from bench.latency import write
from bench.servers import servers

RATE = 2_000.0
EVERY_TRANSACTION = 10**9
_WARM_UP = 0.1  # of the run
_PARTS = 3  # of the run, whose quantiles show the spread
_ARRIVAL = 10.0  # seconds for the last one


class Seen(msgspec.Struct, frozen=True):
    """A line of the writer's log, and of the observer's: a row, and a moment in monotonic seconds."""

    request_id: str
    monotonic: float


@dataclass(frozen=True, slots=True)
class Commits:
    """Milliseconds from COMMIT to first sight in the order of the commits, the warm-up left out, at `reached` changes/s.

    `cpu`: CPU seconds per second, by process.
    """

    reached: float
    ms: list[float]
    cpu: dict[str, float]

    def quantile(self, percent: int) -> float:
        """Over the whole run."""
        return _quantile(self.ms, percent)

    def spread(self, percent: int) -> list[float]:
        """The same of each third of the run."""
        size = -(-len(self.ms) // _PARTS)
        return [_quantile(self.ms[start : start + size], percent) for start in range(0, len(self.ms), size)]


def measure(site: CaptureSite, seconds: float, say: Callable[[str, int], None]) -> Commits:
    """Run writer, relay and observer for `seconds`. RuntimeError when a committed row was never seen."""
    probes, sights = site.directory / "probes", site.directory / "sights"
    probes.unlink(missing_ok=True)
    processes = {"relay": site.start_relay(), **servers()}
    with _observer(site, sights):
        cpu, began = proc.cpu_seconds(processes), time.monotonic()
        done = write(
            site.environment, site.writer_url_of(SHOP), probes, RATE, seconds, EVERY_TRANSACTION,
            lambda: say("commit to Kafka", round(time.monotonic() - began)),
        )  # fmt: skip
        spent = proc.differences(proc.cpu_seconds(processes), cpu)
        time.sleep(1.0)
    site.stop_relay()
    ms = between(read(probes), {one.request_id: one.monotonic for one in read(sights)})
    return Commits(
        done["changes"] / done["seconds"],
        ms[round(len(ms) * _WARM_UP) :],
        {name: value / done["seconds"] for name, value in spent.items()},
    )


def between(committed: list[Seen], seen: Mapping[str, float]) -> list[float]:
    """Milliseconds from each commit to its sight; RuntimeError names how many were not seen."""
    missing = [one.request_id for one in committed if one.request_id not in seen]
    if missing:
        raise RuntimeError(f"{len(missing)} of {len(committed)} committed rows were not seen in Kafka")
    return [(seen[one.request_id] - one.monotonic) * 1000 for one in committed]


def read(file: Path) -> list[Seen]:
    """Every line."""
    return [msgspec.json.decode(line, type=Seen) for line in file.read_bytes().splitlines()]


def _quantile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100)[percent - 1] if len(values) > 1 else float("nan")


@contextmanager
def _observer(site: CaptureSite, file: Path) -> Iterator[None]:
    servers = site.settings.environment.kafka_bootstrap_servers
    observer = subprocess.Popen(
        [sys.executable, "-m", "bench.capture.observer", servers, site.topic, str(file)],
        cwd=site.directory, env=site.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert observer.stdin is not None and observer.stdout is not None
    try:
        if observer.stdout.readline().strip() != "ready":
            raise RuntimeError("the observer does not come up")
        yield
        observer.stdin.close()
        if observer.wait(_ARRIVAL) != 0:
            raise RuntimeError(f"the observer ended with {observer.returncode}")
    finally:
        observer.kill()
        observer.wait()
        observer.stdout.close()
