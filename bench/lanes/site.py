"""The deployment ``bench_lanes``: a topic without sources, one bridge and one worker of whichever consumer is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import ClassVar, LiteralString

from bench.lanes.consumers import RECEIPTS
from bench.lanes.events import PARTITIONS
from bench.site import STARTS, Site, pids
from devstack.process import wait_until
from devstack.supervisor import Supervisor
from pipeline.bridge.group_view import GroupView
from pipeline.bridge.start import group_of
from pipeline.bridge.topics import Topics
from pipeline.lanes.store import connect
from pipeline.telemetry import heartbeats

_NAME = "bench_lanes"
GROUPED, SINGLE = "grouped", "single"
WATCHED = {50: "watched", 1: "watched_single"}
_TAKEN_OVER = '"partitions taken over"'
_TOML = f"""
[deployment]
name = "{_NAME}"
datastream = {{ topic = "{_NAME}", partitions = {PARTITIONS} }}
eventstream = {{ topic = "{_NAME}.events", partitions = {PARTITIONS} }}
replication_factor = 1
min_insync_replicas = 1

[sources]

[consumers.{GROUPED}]
handler = "bench.lanes.consumers:nothing"
group = 50

[consumers.{SINGLE}]
handler = "bench.lanes.consumers:nothing"
group = 1
start = "latest"

[consumers.{WATCHED[50]}]
handler = "bench.lanes.consumers:watched"
group = 50

[consumers.{WATCHED[1]}]
handler = "bench.lanes.consumers:watched"
group = 1
"""


@dataclass
class LaneSite(Site):
    """At most one bridge and one worker run at a time."""

    NAME: ClassVar[str] = _NAME
    TOML: ClassVar[str] = _TOML
    SOURCES: ClassVar[Mapping[str, LiteralString]] = {}
    _running: dict[str, Supervisor] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        """Where the events lie."""
        return self.settings.datastream.topic

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self.settings.environment.kafka_bootstrap_servers

    @property
    def redis_url(self) -> str:
        """Redis's address, with its password."""
        return self.settings.environment.redis_url.get_secret_value()

    def start_bridge(self, consumer: str) -> int:
        """Start it and wait until it begins to read; its pid."""
        return self.start("bridge", f"pipeline bridge {consumer}", _TAKEN_OVER)

    def start_worker(self, consumer: str, threads: int = 2) -> int:
        """Start it and wait until it takes turns; its pid."""
        name = f"{consumer}@%h"
        pid = self.start(
            "worker",
            f"celery -A tasks.app worker -P threads -c {threads} --without-gossip --without-mingle -Q {consumer} -n {name}",
        )
        with connect(self.redis_url) as client:
            ready = wait_until(lambda: any(one.pid == pid for one in heartbeats(client, self.NAME)), STARTS)
        if not ready:
            raise RuntimeError(f"the worker is not ready after {STARTS:.0f} s; see {self.directory / 'logs'}")
        return pid

    def start(self, name: str, command: str, mark: str | None = None) -> int:
        """Start a Python module's command under this name, and wait until its log holds `mark`; its pid."""
        supervisor = self._running[name] = self.supervisor({name: command})
        supervisor.set_env(name, {RECEIPTS: str(self.directory / "receipts")})
        begins = self.logged(name)
        pid = supervisor.start(name)
        if mark is not None:
            self.awaited(name, begins, mark)
        return pid

    def require_no_doubles(self) -> None:
        """RuntimeError when the bridge has dropped records as doubles: what was measured then is no work for anybody."""
        pid, since = self.pids()["bridge"], time.time()
        said: list[float] = []

        def beats() -> bool:
            with connect(self.redis_url) as client:
                now = [one for one in heartbeats(client, self.NAME) if one.pid == pid and one.at > since]
            said[:] = [float(one.metrics["doubles"]) for one in now]
            return bool(said)

        if not wait_until(beats, STARTS, 0.2):
            raise RuntimeError(f"the bridge does not beat; see {self.directory / 'logs'}")
        if said[0]:
            raise RuntimeError(
                f"the bridge dropped {said[0]:.0f} records as doubles; a source must be new each time"
            )

    def pids(self) -> dict[str, int]:
        """Our processes by name. RuntimeError when one has died."""
        return pids(*self._running.values())

    def end(self, name: str) -> None:
        """SIGTERM for one; RuntimeError when it had died before."""
        supervisor = self._running[name]
        try:
            pids(supervisor)
        finally:
            supervisor.stop()
            del self._running[name]

    def stop(self) -> None:
        """SIGTERM for what runs."""
        for supervisor in self._running.values():
            supervisor.stop()
        self._running.clear()

    def view(self, consumer: str) -> GroupView:
        """Kafka's word on how far a consumer is."""
        return self.view_of(group_of(self.settings, consumer))

    def view_of(self, group: str) -> GroupView:
        """The same of any group."""
        return GroupView(self.bootstrap, Topics((self.topic,), PARTITIONS), group)

    def end_offsets(self) -> dict[int, int]:
        """The offset after the last record of each partition."""
        with closing(self.view(GROUPED)) as view:
            return view.ends()
