"""The deployment of ``bench e2e``: one source of one table, both sinks, the processes of the Procfile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, LiteralString

from bench.load import SCHEMA
from bench.site import STARTS, Site, logged_at, pids
from devstack.process import wait_until
from devstack.supervisor import Supervisor
from pipeline.lanes.store import connect
from pipeline.telemetry import heartbeats

NAME = "bench_e2e"
SOURCE, TYPE = "shop", "payment"
RELAY = "relay"
# As in the repository's pipeline.toml and Procfile, with one source of one table.
_TOML = f"""
[deployment]
name = "{NAME}"
datastream = {{ topic = "{NAME}", partitions = 12 }}
eventstream = {{ topic = "{NAME}.events", partitions = 12 }}
replication_factor = 1
min_insync_replicas = 1

[sources.{SOURCE}.tables."public.payments"]
merchant = {{ column = "merchant_id" }}
type = "{TYPE}"

[consumers.search]
handler = "tasks.search:index"
group = 500
turn_events = 1000
linger = "25ms"

[consumers.warehouse]
handler = "tasks.warehouse:stage"
group = 500
linger = "5s"

[search]
replicas = 0

[warehouse]
iam_role = "arn:aws:iam::123456789012:role/pipeline-copy"
"""
_WORKER = "celery -A tasks.app worker -P threads --without-gossip --without-mingle"
_PROCESSES = {
    "bridge_search": "pipeline bridge search",
    "bridge_warehouse": "pipeline bridge warehouse",
    "worker_search": f"{_WORKER} -c 2 -Q search -n bench_search@%h",
    "worker_warehouse": f"{_WORKER} -c 4 -Q warehouse,loads,sweeps -n bench_warehouse@%h",
    "beat": "celery -A tasks.app beat -S celery.beat:Scheduler",
}
_READY = {"bridge_search": '"bridge runs"', "bridge_warehouse": '"bridge runs"'}


@dataclass
class Deployment(Site):
    """The relay has a supervisor of its own: rows are committed while it is stopped and everything else waits for them."""

    NAME: ClassVar[str] = NAME
    TOML: ClassVar[str] = _TOML
    SOURCES: ClassVar[Mapping[str, LiteralString]] = {SOURCE: SCHEMA}
    _rest: Supervisor | None = None
    _relay: Supervisor | None = None

    @property
    def writer_url(self) -> str:
        """Where the application writes."""
        return self.writer_url_of(SOURCE)

    def start(self) -> None:
        """Start everything but the relay, and wait until it is ready."""
        self._rest = self.supervisor(_PROCESSES)
        for name in self._rest.names:
            self._rest.start(name)
        for name, mark in _READY.items():
            self.awaited(name, 0, mark)
        for consumer in ("worker:search", "worker:loads,sweeps,warehouse"):
            self._await_heartbeat(consumer)

    def start_relay(self) -> tuple[float, float]:
        """Start the relay; returns when it was started and when it was ready, in seconds since 1970."""
        self._relay = self.supervisor({RELAY: f"pipeline capture run {SOURCE}"})
        begins = self.logged(RELAY)
        started = datetime.now().astimezone().timestamp()
        self._relay.start(RELAY)
        return started, logged_at(self.awaited(RELAY, begins, '"relaying"'))

    def stop_relay(self) -> None:
        """SIGTERM; it finishes what it has begun."""
        if self._relay is not None:
            self._relay.stop()
            self._relay = None

    def stop(self) -> None:
        """SIGTERM for all."""
        self.stop_relay()
        if self._rest is not None:
            self._rest.stop()
            self._rest = None

    def pids(self) -> dict[str, int]:
        """Our processes by name, the relay first. RuntimeError when one has died."""
        return pids(self._relay, self._rest)

    def _await_heartbeat(self, process: str) -> None:
        with connect(self.settings.environment.redis_url.get_secret_value()) as client:
            seen = wait_until(
                lambda: any(state.process == process for state in heartbeats(client, NAME)), STARTS, 0.1
            )
        if not seen:
            raise RuntimeError(f"{process} is not ready after {STARTS:.0f} s; see {self.directory / 'logs'}")
