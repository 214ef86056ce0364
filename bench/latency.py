"""Commit to searchable and commit to warehouse at a steady rate, seen by outside polls (example/latency.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.deployment import Deployment
from bench.site import REPO
from example.latency import Watch, search_watch, warehouse_watch

PROBES = 2500
_ARRIVAL = 180.0  # seconds that the last probe may take


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles by percent, of so many probes; `rate` is what the writer was asked for, `reached` what it wrote."""

    rate: float
    reached: float
    probes: int
    searchable_ms: dict[int, float]
    warehouse_s: dict[int, float]


def measure(deployment: Deployment, rate: float, seconds: float, say: Callable[[str, int], None]) -> Latency:
    """Run the writer for `seconds` with everything running. TimeoutError when a probe does not arrive."""
    log = deployment.directory / "probes"
    log.unlink(missing_ok=True)
    deployment.start_relay()
    search, warehouse = search_watch(deployment.settings, log), warehouse_watch(deployment.settings, log)
    try:
        done = write(
            deployment.environment, deployment.writer_url, log, rate, seconds, PROBES,
            lambda: say("latency", len(search.seconds)),
        )  # fmt: skip
        _await(search, warehouse, lambda: say("arriving", len(warehouse.seconds)))
    finally:
        search.finish()
        warehouse.finish()
        deployment.stop_relay()
    return Latency(
        rate=rate,
        reached=done["changes"] / done["seconds"],
        probes=len(search.seconds),
        searchable_ms={percent: search.quantile(percent) * 1000 for percent in (50, 99)},
        warehouse_s={percent: warehouse.quantile(percent) for percent in (50, 99)},
    )


def write(
    environment: Mapping[str, str],
    url: str,
    log: Path,
    rate: float,
    seconds: float,
    probes: int,
    glance: Callable[[], None],
) -> dict[str, float]:
    """Run bench.writer to its end; what it reached."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "bench.writer", f"{rate:.1f}", str(seconds), str(probes), str(log)],
        cwd=REPO, env={**environment, "BENCH_WRITER_URL": url}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with writer:
        while writer.poll() is None:
            time.sleep(0.5)
            glance()
        assert writer.stdout is not None
        text = writer.stdout.read()
    if writer.returncode:
        raise RuntimeError(f"the writer ended with {writer.returncode}")
    done: dict[str, float] = json.loads(text)
    return done


def _await(search: Watch, warehouse: Watch, glance: Callable[[], None]) -> None:
    deadline = time.monotonic() + _ARRIVAL
    while search.outstanding() or warehouse.outstanding():
        if time.monotonic() > deadline or search.failure or warehouse.failure:
            raise TimeoutError(
                f"not seen: {search.outstanding()} in search, {warehouse.outstanding()} in the warehouse"
            )
        time.sleep(0.5)
        glance()
