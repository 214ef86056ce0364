"""Two sources of the same tables under capture, real relays on them, and a sink that takes whatever is newest."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from devstack.process import wait_until
from pipeline.capture import install
from pipeline.capture.queue import has_relay, last_tick_covers, nudge
from pipeline.capture.session import session
from pipeline.control.database import ControlDatabase
from pipeline.domain.event import Event, decode
from pipeline.domain.routing import encode_key
from pipeline.domain.sweep import Sweep, decode_sweep
from pipeline.settings import Source
from tests.conftest import REPO, SourceDatabase
from tests.integration.kafka_topic import read_topic

EAST, WEST = "east", "west"
TABLES = {
    "public.orders": {"merchant": {"column": "merchant_id"}, "exclude": ["secret"]},
    "public.lines": {"merchant": {"parent": "public.orders", "on": "order_id"}},
}
SCHEMA = (
    "create table orders (id bigint generated always as identity primary key, merchant_id integer not null,"
    " v integer not null, twice integer generated always as (v * 2) stored, note text, secret text)",
    "create table lines (id bigint primary key, order_id bigint not null references orders on delete cascade,"
    " after bigint references lines, v integer)",
    "create index on lines (order_id)",
)
_CONFIGURATION = """
[deployment]
name = "{topic}"
datastream = {{ topic = "{topic}", partitions = 3 }}
eventstream = {{ topic = "{topic}.events", partitions = 3 }}
replication_factor = 1
min_insync_replicas = 1
"""
_SOURCE = """
[sources.{name}]
emitters = ["app"]
[sources.{name}.tables."public.orders"]
merchant = {{ column = "merchant_id" }}
exclude = ["secret"]
[sources.{name}.tables."public.lines"]
merchant = {{ parent = "public.orders", on = "order_id" }}
"""
Row = tuple[str, str, str]
"""(merchant, type, key)"""


@dataclass(slots=True)
class Shards:
    """Sources `east` and `west`; `run` is the application, `command` the operator."""

    sources: Mapping[str, SourceDatabase]
    database: ControlDatabase
    directory: Path
    variables: Mapping[str, str]
    bootstrap: str
    topic: str
    relays: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)

    def run(self, source: str, *statements: str) -> None:
        """Run statements as the application, each in a transaction of its own."""
        with psycopg.connect(self.sources[source].writer_url, autocommit=True) as writer:
            for statement in statements:
                writer.execute(statement.encode())

    def ask(self, source: str, query: str) -> list[tuple[Any, ...]]:
        """The answer to a query, as the role of capture."""
        with session(self.sources[source].url) as connection:
            return connection.execute(query.encode()).fetchall()

    def start(self, source: str) -> None:
        """Start a relay, and wait until it is at work."""
        with (self.directory / f"{source}.log").open("a") as log:
            self.relays[source] = self._start("capture", "run", source, output=log)
        with session(self.sources[source].url) as connection:
            assert wait_until(lambda: has_relay(connection), 30)

    def stop(self, source: str) -> None:
        """End a relay as a platform does."""
        process = self.relays.pop(source)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, self.said(source)

    def said(self, source: str) -> str:
        """What its relays have said."""
        return (self.directory / f"{source}.log").read_text()

    def _start(
        self, *arguments: str, failpoints: str = "", output: Any = subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.directory,
            env={**self.variables, "PIPELINE_FAILPOINTS": failpoints},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def moving(
        self, source: str, target: str, *options: str, failpoint: str = "", merchant: str = "6"
    ) -> "subprocess.Popen[str]":
        """Start to move a merchant."""
        command = ("merchants", "move", merchant, "--from", source, "--to", target, "--reason", "a test")
        return self._start(*command, "--frozen", *options, failpoints=failpoint)

    def move(self, source: str, target: str, *options: str, failpoint: str = "") -> str:
        """Move merchant 6, frozen; what was said. It must succeed, or die at the point that is named."""
        code, said = self.tried(source, target, *options, failpoint=failpoint)
        assert code == (-signal.SIGKILL if failpoint else 0), said
        return said

    def tried(
        self, source: str, target: str, *options: str, failpoint: str = "", merchant: str = "6"
    ) -> tuple[int, str]:
        """As `move`, with whatever comes of it."""
        process = self.moving(source, target, *options, failpoint=failpoint, merchant=merchant)
        try:
            said, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            texts = [process.communicate()[0], *(self.said(name) for name in self.relays)]
            raise AssertionError("\n".join(texts)) from None
        return process.returncode, said

    def listed(self) -> Any:
        """What ``pipeline merchants list --json`` says."""
        said, _ = self._start("merchants", "list", "--json").communicate(timeout=30)
        return json.loads(said)

    def settle(self) -> None:
        """Everything that is committed is published."""
        for source, database in self.sources.items():
            with session(database.url) as connection:
                (seen,) = connection.execute("select txid_current_snapshot()::text").fetchone() or ("",)
                nudge(connection)
                assert wait_until(partial(last_tick_covers, connection, seen), 30, pause=0.05), source

    def rows(self, source: str, merchant: str) -> dict[Row, Mapping[str, Any]]:
        """What the source has of a merchant, as a sink would hold it."""
        found: dict[Row, Mapping[str, Any]] = {}
        for type_, query in (
            ("orders", "select to_jsonb(o) - 'secret' from public.orders o where merchant_id = {0}"),
            ("lines", "select to_jsonb(l) from public.lines l join public.orders o on o.id = order_id"
             " where merchant_id = {0}"),
        ):  # fmt: skip
            for (row,) in self.ask(source, query.format(merchant)):
                found[merchant, type_, encode_key({"id": row["id"]})] = row
        return found

    def sink(self, seed: int = 0) -> "Sink":
        """A sink that has read all there is, partitions interleaved in an order of chance."""
        sink = Sink(partitions=6)
        lanes = [
            (topic, partition, iter(records))
            for topic in (self.topic, f"{self.topic}.snapshot")
            for partition, records in _partitions(read_topic(self.bootstrap, topic)).items()
        ]
        chance = random.Random(seed)
        while lanes:
            topic, partition, records = lane = chance.choice(lanes)
            record = next(records, None)
            if record is None:
                lanes.remove(lane)
            else:
                sink.take(topic, partition, record)
        return sink

    def events(self, merchant: str) -> list[Event]:
        """The merchant's events on the topic of changes, as they lie there."""
        found = [
            decode(record.value, merchant)
            for record in read_topic(self.bootstrap, self.topic)
            if record.key == merchant.encode()
        ]
        return [event for event in found if event.op != "r"]


def _partitions(records: list[Any]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for record in records:
        found.setdefault(record.partition, []).append(record)
    return found


@dataclass(slots=True)
class Sink:
    """Keeps the highest version of each row, tombstones too; runs a sweep once every partition has passed it."""

    partitions: int
    held: dict[Row, Event] = field(default_factory=dict)
    passed: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    sweeps: list[Sweep] = field(default_factory=list)

    def take(self, topic: str, partition: int, record: Any) -> None:
        """One record of one partition."""
        if record.key is None:
            sweep = decode_sweep(record.value)
            assert sweep is not None
            self._pass(sweep, topic, partition)
            return
        event = decode(record.value, record.key.decode())
        if event.is_row:
            row = (event.merchant, event.type, encode_key(event.key))
            if row not in self.held or self.held[row].version < event.version:
                self.held[row] = event

    def _pass(self, sweep: Sweep, topic: str, partition: int) -> None:
        seen = self.passed.setdefault(sweep.id, set())
        complete = len(seen) == self.partitions
        seen.add((topic, partition))
        if not complete and len(seen) == self.partitions:
            self.sweeps.append(sweep)
            for row, event in list(self.held.items()):
                of_it = (event.src, event.type) == (sweep.src, sweep.type)
                if of_it and sweep.merchant in (None, row[0]) and event.version < sweep.version:
                    del self.held[row]

    def living(self, merchant: str) -> dict[Row, Mapping[str, Any]]:
        """The merchant's rows."""
        return {
            row: event.row() for row, event in self.held.items() if row[0] == merchant and not event.deleted
        }

    def sources(self, merchant: str) -> set[str]:
        """Where its living rows come from."""
        return {self.held[row].src for row in self.living(merchant)}


@contextmanager
def shards(
    databases: Mapping[str, SourceDatabase],
    control_url: str,
    directory: Path,
    variables: Mapping[str, str],
    bootstrap: str,
    topic: str,
) -> Iterator[Shards]:
    """Both sources with their tables and capture installed; relays are started by the test and ended here."""
    text = _CONFIGURATION.format(topic=topic) + "".join(_SOURCE.format(name=name) for name in databases)
    (directory / "pipeline.toml").write_text(text)
    urls = {f"{name.upper()}_DATABASE_URL": database.url for name, database in databases.items()}
    environment = {
        **variables,
        **urls,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPO),
        "CONTROL_DATABASE_URL": control_url,
    }
    database = ControlDatabase(control_url)
    made = Shards(databases, database, directory, environment, bootstrap, topic)
    with ExitStack() as stack:
        stack.callback(database.close)
        for name, source in databases.items():
            made.run(name, *SCHEMA)
            configured = Source.model_validate({"tables": TABLES, "emitters": ["app"]})
            install.install(database, name, configured, source.url, actor="test")
        stack.callback(_end, made.relays)
        yield made


def _end(relays: Mapping[str, "subprocess.Popen[str]"]) -> None:
    for process in relays.values():
        process.kill()
        process.communicate()
