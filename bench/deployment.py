"""A deployment of the bench's own, ``bench_e2e``: databases, topic, lanes, indices, schema, processes; gone afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psycopg

from bench.load import SCHEMA
from devstack.postgres import create_database, drop_database
from devstack.process import wait_until
from devstack.supervisor import Supervisor
from example.fresh import forget
from pipeline import settings as configuration
from pipeline.lanes.store import connect
from pipeline.settings import Settings
from pipeline.telemetry import heartbeats

REPO = Path(__file__).resolve().parent.parent
NAME = "bench_e2e"
SOURCE, TYPE = "shop", "payment"
RELAY = "relay"
_STARTS = 60.0  # seconds a process may take until it is ready
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
_WORKER = "celery -A tasks.app worker -P threads -c 2 --without-gossip --without-mingle"
_PROCESSES = {
    "bridge_search": "pipeline bridge search",
    "bridge_warehouse": "pipeline bridge warehouse",
    "worker_search": f"{_WORKER} -Q search -n bench_search@%h",
    "worker_warehouse": f"{_WORKER} -Q warehouse,loads -n bench_warehouse@%h",
    "beat": "celery -A tasks.app beat -S celery.beat:Scheduler",
}
_READY = {"bridge_search": '"bridge runs"', "bridge_warehouse": '"bridge runs"'}


@dataclass
class Deployment:
    """Made by ``create``, taken away by ``destroy``; `directory` holds its pipeline.toml and logs.

    The relay has a supervisor of its own: rows are committed while it is stopped and everything else waits for them.
    """

    directory: Path
    variables: Mapping[str, str]
    settings: Settings = field(init=False)
    environment: dict[str, str] = field(init=False)
    _rest: Supervisor | None = None
    _relay: Supervisor | None = None

    def __post_init__(self) -> None:
        (self.directory / "pipeline.toml").write_text(_TOML)
        kept = {name: value for name, value in self.variables.items() if not name.startswith("PIPELINE_")}
        self.environment = {
            **kept,
            f"{SOURCE.upper()}_DATABASE_URL": self._url(SOURCE, "CONTROL_DATABASE_URL"),
            "CONTROL_DATABASE_URL": self._url("control", "CONTROL_DATABASE_URL"),
            "PYTHONPATH": str(REPO),
        }
        self.settings = configuration.load(self.environment, self.directory)

    @property
    def writer_url(self) -> str:
        """Where the application writes."""
        return self._url(SOURCE, "EXAMPLE_WRITER_URL")

    def create(self) -> None:
        """Take away what a killed bench has left, then make everything but processes; capture is installed."""
        admin = self.variables["DEVSTACK_POSTGRES_URL"]
        forget(self.settings, admin)
        create_database(admin, _database(SOURCE))
        with psycopg.connect(self.writer_url) as session:
            session.execute(SCHEMA)
        self.pipeline("migrate")
        self.pipeline("capture", "install", SOURCE)

    def destroy(self) -> None:
        """Stop the processes and take away everything."""
        self.stop()
        admin = self.variables["DEVSTACK_POSTGRES_URL"]
        forget(self.settings, admin)
        for name in (SOURCE, "control"):
            drop_database(admin, _database(name))

    def pipeline(self, *arguments: str) -> None:
        """Run ``pipeline …`` here to its end; RuntimeError with its output when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"pipeline {' '.join(arguments)}: {done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start everything but the relay, and wait until it is ready."""
        self._rest = self._supervisor(_PROCESSES)
        for name in self._rest.names:
            self._rest.start(name)
        for name, mark in _READY.items():
            self._await(name, 0, mark)
        for consumer in ("worker:search", "worker:loads,warehouse"):
            self._await_heartbeat(consumer)

    def start_relay(self) -> tuple[float, float]:
        """Start the relay; returns when it was started and when it was ready, in seconds since 1970."""
        self._relay = self._supervisor({RELAY: f"pipeline capture run {SOURCE}"})
        log = self._relay.log(RELAY)
        begins = log.stat().st_size if log.exists() else 0
        started = datetime.now().astimezone().timestamp()
        self._relay.start(RELAY)
        return started, logged_at(self._await(RELAY, begins, '"relaying"'))

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
        """Our processes by name. RuntimeError when one had to be started again: nothing measured then is of use."""
        found = {}
        for supervisor in filter(None, (self._relay, self._rest)):
            for name in supervisor.names:
                pid = supervisor.pid(name)
                if supervisor.restarts(name) or pid is None:
                    raise RuntimeError(f"{name} has died; see {supervisor.log(name)}")
                found[name] = pid
        return found

    def _supervisor(self, commands: Mapping[str, str]) -> Supervisor:
        lines = {name: f"{sys.executable} -m {command}" for name, command in commands.items()}
        return Supervisor(lines, self.environment, self.directory / "logs", self.directory)

    def _await(self, name: str, begins: int, mark: str) -> str:
        """The first line of a log, from byte `begins` on, that holds `mark`."""
        log = self.directory / "logs" / f"{name}.log"
        found: list[str] = []

        def look() -> bool:
            text = log.read_bytes()[begins:].decode(errors="replace") if log.exists() else ""
            found[:] = [line for line in text.splitlines() if mark in line][:1]
            return bool(found)

        if not wait_until(look, _STARTS, 0.02):
            raise RuntimeError(f"{name} is not ready after {_STARTS:.0f} s; see {log}")
        return found[0]

    def _await_heartbeat(self, process: str) -> None:
        with connect(self.settings.environment.redis_url.get_secret_value()) as client:
            seen = wait_until(
                lambda: any(state.process == process for state in heartbeats(client, NAME)), _STARTS, 0.1
            )
        if not seen:
            raise RuntimeError(f"{process} is not ready after {_STARTS:.0f} s; see {self.directory / 'logs'}")

    def _url(self, database: str, like: str) -> str:
        return urlunsplit(urlsplit(self.variables[like])._replace(path=f"/{_database(database)}"))


def logged_at(line: str) -> float:
    """When a line of a JSON log was written, in seconds since 1970."""
    stamp = msgspec.json.decode(line, type=dict[str, object])["timestamp"]
    return datetime.fromisoformat(str(stamp)).timestamp()


def _database(name: str) -> str:
    return f"{NAME}_{name}"
