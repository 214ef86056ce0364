"""A whole pipeline of a test's own: databases, topic, lanes, indices, schema and processes, gone afterwards.

PostgreSQL, Kafka, Elasticsearch, S3 and the Redshift stand-in are the development stack's; Redis is its own, because
it is killed. ``code`` is the directory the processes' modules come from: a mutant's copy, or the repository.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import boto3
import psycopg
import redis
from elasticsearch import Elasticsearch
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from psycopg import sql

from devstack.postgres import create_database, drop_database
from devstack.process import wait_until
from devstack.supervisor import Supervisor
from pipeline.control import detached
from pipeline.control.database import ControlDatabase
from tests.acceptance.recorder import complete_lines
from tests.conftest import _run_in_warehouse

REPO = Path(__file__).resolve().parents[2]
SOURCES = ("shard0", "shard1")
PARTITIONS = 4
SCHEMA = """
CREATE TABLE steps (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, merchant_id text NOT NULL, step bigint NOT NULL,
    amount numeric(18,2) NOT NULL, note text, at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE notes (
    merchant_id text NOT NULL, number integer NOT NULL, step bigint NOT NULL, body text, extra jsonb,
    PRIMARY KEY (merchant_id, number)
);
"""
TOML = """
[deployment]
name = "{name}"
datastream = {{ topic = "{name}", partitions = {partitions} }}
eventstream = {{ topic = "{name}.events", partitions = {partitions} }}
replication_factor = 1
min_insync_replicas = 1

{sources}
[consumers.search]
handler = "tasks.search:index"
group = 50
turn_events = 200
lease = "2s"

[consumers.warehouse]
handler = "tasks.warehouse:stage"
group = 500
linger = "500ms"
lease = "2s"

[consumers.recorder]
handler = "tests.acceptance.recorder:record"
group = 20
turn_events = 50
lease = "2s"

[search]
replicas = 0

[warehouse]
load_after = "1s"
iam_role = "arn:aws:iam::123456789012:role/pipeline-copy"
"""
SOURCE_TOML = """
[sources.{name}.tables."public.steps"]
merchant = {{ column = "merchant_id" }}
type = "step"

[sources.{name}.tables."public.notes"]
merchant = {{ column = "merchant_id" }}
type = "note"
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Deployment:
    """One deployment; ``start`` makes everything and installs capture, ``stop`` takes everything away."""

    name: str
    directory: Path
    variables: Mapping[str, str]
    code: Path = REPO
    redis: subprocess.Popen[bytes] | None = None
    redis_port: int = field(default_factory=_free_port)
    supervisor: Supervisor = field(init=False)
    _armed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sources = "".join(SOURCE_TOML.format(name=source) for source in SOURCES)
        (self.directory / "pipeline.toml").write_text(
            TOML.format(name=self.name, sources=sources, partitions=PARTITIONS)
        )
        self.environment = {
            **{name: value for name, value in self.variables.items() if not name.startswith("PIPELINE_")},
            **{f"{source.upper()}_DATABASE_URL": self.url(source) for source in SOURCES},
            "CONTROL_DATABASE_URL": self.url("control"),
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "PYTHONPATH": os.pathsep.join((str(self.code), str(REPO))),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RECORDING": str(self.directory / "recording"),
        }
        self.supervisor = Supervisor(_commands(), self.environment, self.directory / "logs", self.directory)

    def database(self, source: str) -> str:
        """The name of a source's database in the cluster."""
        return f"{self.name}_{source}"

    def url(self, source: str, role: str = "CONTROL_DATABASE_URL") -> str:
        """Where a source is, for the pipeline's role or the application's."""
        return urlunsplit(urlsplit(self.variables[role])._replace(path=f"/{self.database(source)}"))

    def writer_url(self, source: str) -> str:
        """Where the application writes."""
        return self.url(source, "EXAMPLE_WRITER_URL")

    def create(self) -> None:
        """Databases with rows that are older than the pipeline, Redis, topic, indices, tables, triggers."""
        admin = self.variables["DEVSTACK_POSTGRES_URL"]
        for source in SOURCES:
            create_database(admin, self.database(source))
            with psycopg.connect(self.writer_url(source)) as session:
                session.execute(SCHEMA)
        with psycopg.connect(admin, autocommit=True) as session:
            name = sql.Identifier(self.database("control"))
            session.execute(sql.SQL("create database {} owner pipeline").format(name))
        self.start_redis()

    def install(self, sources: Sequence[str] = SOURCES) -> None:
        """Everything ``pipeline migrate`` and ``capture install`` do."""
        self.run("migrate")
        for source in sources:
            self.run("capture", "install", source)

    def run(self, *arguments: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run ``pipeline ...`` here; fails with its output unless it exits with `expect` (None: whatever)."""
        command = [sys.executable, "-m", "pipeline", *arguments]
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        if expect is not None:
            assert done.returncode == expect, f"pipeline {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def verify(self, *arguments: str) -> dict[str, Any]:
        """What ``pipeline verify --json`` found; ``ok`` says whether it exited with 0."""
        done = self.run("verify", "--json", "--timeout", "120", *arguments, expect=None)
        assert done.returncode in (0, 1), done.stderr
        lines = done.stdout.strip()
        report: dict[str, Any] = json.loads(lines) if lines.startswith("{") else {"error": done.stderr}
        return report | {"ok": done.returncode == 0}

    def die_at(self, process: str, point: str, signal_name: str = "KILL") -> None:
        """Restart `process` so that it dies (or stops) at its next pass of `point`, and wait until it has."""
        self.arm(process, f"{point}:1:{signal_name}")
        if signal_name == "STOP":
            self.await_stop(process)
        else:
            self.await_death(process)

    def await_death(self, process: str) -> None:
        """Wait until an armed process has died and was started again."""
        starts = self.supervisor.restarts(process)
        if self._armed.pop(process) == starts:
            died = wait_until(lambda: self.supervisor.restarts(process) > starts, 60)
            assert died, f"{process} did not pass its failpoint; see {self._log(process)}"

    def write_at_once(self, source: str, rows: int) -> None:
        """One transaction of so many rows, of a merchant that the writer does not number."""
        with psycopg.connect(self.writer_url(source)) as session:
            session.execute(
                "INSERT INTO notes (merchant_id, number, step, body)"
                " SELECT 'bulk', n, 0, repeat('x', 100) FROM generate_series(1, %s) n",
                (rows,),
            )

    def _log(self, process: str) -> str:
        return f"{self.supervisor.log(process)}: {self.supervisor.log(process).read_text()[-1500:]}"

    def arm(self, process: str, failpoints: str) -> None:
        """Start or restart `process` with these failpoints; its start after that has none."""
        self.supervisor.set_env(process, {"PIPELINE_FAILPOINTS": failpoints})
        if self.supervisor.log(process).exists():  # it was started before
            self.restart(process)
        else:
            self.start(process)
        self.supervisor.set_env(process, {"PIPELINE_FAILPOINTS": ""})
        self._armed[process] = self.supervisor.restarts(process)

    def start(self, *processes: str) -> None:
        """Start these processes, save those that run."""
        for process in processes:
            self.supervisor.start(process)

    def restart(self, process: str) -> None:
        """SIGTERM, and wait until it has ended and was started again; one that is stopped is woken for it."""
        starts = self.supervisor.restarts(process)
        if self.supervisor.pid(process) is not None:
            self.supervisor.signal(process, signal.SIGTERM)
            self.supervisor.signal(process, signal.SIGCONT)
        again = wait_until(lambda: self.supervisor.restarts(process) > starts, 40)
        assert again, f"{process} did not end on SIGTERM"

    def await_stop(self, process: str) -> None:
        """Wait until a process has stopped itself at its failpoint."""
        pid = self.supervisor.pid(process)
        assert wait_until(lambda: _stopped(pid), 60), f"{process} did not stop; see {self._log(process)}"

    def catch_up(self, consumer: str, timeout: float = 60) -> None:
        """Wait until the sink has accepted all that is in the consumer's topics now."""
        bootstrap = self.variables["KAFKA_BOOTSTRAP_SERVERS"]
        topics = [self.name, f"{self.name}.snapshot"] if consumer in ("search", "warehouse") else [self.name]
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
        reader = KafkaConsumer(
            bootstrap_servers=bootstrap, group_id=f"{self.name}-{consumer}", enable_auto_commit=False
        )
        database = ControlDatabase(self.url("control"))
        try:
            ends = reader.end_offsets(partitions)
            places = {(one.topic, one.partition): end for one, end in ends.items()}

            def caught_up() -> bool:
                committed = all((reader.committed(one) or 0) >= ends[one] for one in partitions)
                return committed and not detached.unaccepted(database, consumer, places)

            assert wait_until(caught_up, timeout, 0.2), f"{consumer} does not catch up"
        finally:
            database.close()
            reader.close(autocommit=False)

    def start_redis(self) -> None:
        """A Redis of this deployment's own, empty."""
        self.redis = subprocess.Popen(
            ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--maxmemory", "64mb", "--maxmemory-policy", "noeviction", "--dir", str(self.directory)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        client = redis.Redis(port=self.redis_port)
        assert wait_until(lambda: _answers(client), 10), "redis does not answer"

    def kill_redis(self) -> None:
        """kill -9; what it held is gone."""
        assert self.redis is not None
        self.redis.kill()
        self.redis.wait()

    def destroy(self) -> None:
        """Stop every process and take away everything this deployment made."""
        self.supervisor.stop()
        if self.redis is not None:
            self.kill_redis()
        admin = self.variables["DEVSTACK_POSTGRES_URL"]
        for source in (*SOURCES, "control"):
            drop_database(admin, self.database(source))
        with Elasticsearch(self.variables["ELASTICSEARCH_URL"]) as search:
            for index in search.indices.get(index=f"{self.name}-*"):
                search.indices.delete(index=index)
        _ignoring(
            lambda: _run_in_warehouse(self.variables["REDSHIFT_URL"], f'drop schema "{self.name}" cascade')
        )
        _ignoring(lambda: KafkaAdminClient(
            bootstrap_servers=self.variables["KAFKA_BOOTSTRAP_SERVERS"]).delete_topics(
                [self.name, *(f"{self.name}.{suffix}" for suffix in ("events", "snapshot", "progress"))]))  # fmt: skip
        store = boto3.client("s3")
        listed = store.list_objects_v2(Bucket=self.variables["S3_BUCKET"], Prefix=f"parts/{self.name}/")
        for entry in listed.get("Contents", []):
            store.delete_object(Bucket=self.variables["S3_BUCKET"], Key=entry["Key"])

    def records(self) -> Sequence[dict[str, Any]]:
        """What the recorder wrote, in the order in which it wrote."""
        path = Path(self.environment["RECORDING"])
        return [json.loads(line) for line in complete_lines(path.read_bytes())] if path.exists() else []


def _worker(consumer: str, number: int, queues: str = "") -> str:
    return (
        f"celery -A tasks.app worker -Q {queues or consumer} -P threads -c 2 --without-gossip --without-mingle"
        f" -n {consumer}{number}@%h"
    )


def _commands() -> dict[str, str]:
    """As in the Procfile, but by `python -m` and not the installed scripts: PYTHONPATH decides whose code runs."""
    lines = {
        **{f"capture_{source}": f"pipeline capture run {source}" for source in SOURCES},
        "bridge_search": "pipeline bridge search",
        "bridge_warehouse": "pipeline bridge warehouse",
        "bridge_recorder": "pipeline bridge recorder",
        "worker_search": _worker("search", 1),
        "worker_search_2": _worker("search", 2),
        "worker_warehouse": _worker("warehouse", 1, "warehouse,loads,sweeps"),
        "worker_recorder": _worker("recorder", 1),
        "worker_recorder_2": _worker("recorder", 2),
        "beat": "celery -A tasks.app beat -s beat-schedule",
    }
    return {name: f"{sys.executable} -m {line}" for name, line in lines.items()}


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _stopped(pid: int | None) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def _ignoring(call: Callable[[], object]) -> None:
    """Clearing up goes on when one thing to clear was never made."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  whatever a client raises, the rest must still be cleared
        print(f"not cleared: {error}", file=sys.stderr)
