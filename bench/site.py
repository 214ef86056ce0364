"""A deployment of a bench's own: its databases, topics and whatever else it makes are called after it, and gone afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, LiteralString
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psycopg

from devstack.postgres import create_database, drop_database
from devstack.process import wait_until
from devstack.supervisor import Supervisor
from example.fresh import forget
from pipeline import settings as configuration
from pipeline.settings import Settings

REPO = Path(__file__).resolve().parent.parent
STARTS = 60.0  # seconds a process may take until it is ready


@dataclass
class Site:
    """Made by ``create``, taken away by ``destroy``; `directory` holds its pipeline.toml and logs.

    A bench says its name, its pipeline.toml and the tables of each of its sources.
    """

    NAME: ClassVar[str]
    TOML: ClassVar[str]
    SOURCES: ClassVar[Mapping[str, LiteralString]]
    """The SQL that makes the tables, by source."""

    directory: Path
    variables: Mapping[str, str]
    settings: Settings = field(init=False)
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        (self.directory / "logs").mkdir(exist_ok=True)
        (self.directory / "pipeline.toml").write_text(self.TOML)
        kept = {name: value for name, value in self.variables.items() if not name.startswith("PIPELINE_")}
        urls = {
            f"{source.upper()}_DATABASE_URL": self._url(source, "CONTROL_DATABASE_URL")
            for source in self.SOURCES
        }
        control = self._url("control", "CONTROL_DATABASE_URL")
        self.environment = {**kept, **urls, "CONTROL_DATABASE_URL": control, "PYTHONPATH": str(REPO)}
        self.settings = configuration.load(self.environment, self.directory)

    def writer_url_of(self, source: str) -> str:
        """Where the application writes."""
        return self._url(source, "EXAMPLE_WRITER_URL")

    def admin_url_of(self, source: str) -> str:
        """The same database for the superuser."""
        return self._url(source, "DEVSTACK_POSTGRES_URL")

    def create(self) -> None:
        """Take away what a killed bench has left, then make everything but processes; capture is installed."""
        admin = self.variables["DEVSTACK_POSTGRES_URL"]
        forget(self.settings, admin)
        for source, tables in self.SOURCES.items():
            create_database(admin, self._database(source))
            with psycopg.connect(self.writer_url_of(source)) as session:
                session.execute(tables)
        self.pipeline("migrate")
        for source in self.SOURCES:
            self.pipeline("capture", "install", source)

    def destroy(self) -> None:
        """Stop the processes and take away everything."""
        self.stop()
        admin = self.variables["DEVSTACK_POSTGRES_URL"]
        forget(self.settings, admin)
        for name in (*self.SOURCES, "control"):
            drop_database(admin, self._database(name))

    def stop(self) -> None:
        """SIGTERM for all processes."""

    def pipeline(self, *arguments: str) -> None:
        """Run ``pipeline …`` here to its end; RuntimeError with its output when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"pipeline {' '.join(arguments)}: {done.stdout}{done.stderr}")

    def supervisor(self, commands: Mapping[str, str]) -> Supervisor:
        """Commands of Python modules, by name, each with a log of that name."""
        lines = {name: f"{sys.executable} -m {command}" for name, command in commands.items()}
        return Supervisor(lines, self.environment, self.directory / "logs", self.directory)

    def logged(self, name: str) -> int:
        """The bytes of a process's log so far."""
        log = self.directory / "logs" / f"{name}.log"
        return log.stat().st_size if log.exists() else 0

    def awaited(self, name: str, begins: int, mark: str) -> str:
        """The first line of a log, from byte `begins` on, that holds `mark`."""
        log = self.directory / "logs" / f"{name}.log"
        found: list[str] = []

        def look() -> bool:
            text = log.read_bytes()[begins:].decode(errors="replace") if log.exists() else ""
            found[:] = [line for line in text.splitlines() if mark in line][:1]
            return bool(found)

        if not wait_until(look, STARTS, 0.02):
            raise RuntimeError(f"{name} is not ready after {STARTS:.0f} s; see {log}")
        return found[0]

    def _url(self, database: str, like: str) -> str:
        return urlunsplit(urlsplit(self.variables[like])._replace(path=f"/{self._database(database)}"))

    def _database(self, name: str) -> str:
        return f"{self.NAME}_{name}"


def pids(*supervisors: Supervisor | None) -> dict[str, int]:
    """Processes by name. RuntimeError when one had to be started again: nothing measured then is of use."""
    found = {}
    for supervisor in filter(None, supervisors):
        for name in supervisor.names:
            pid = supervisor.pid(name)
            if supervisor.restarts(name) or pid is None:
                raise RuntimeError(f"{name} has died; see {supervisor.log(name)}")
            found[name] = pid
    return found


def logged_at(line: str) -> float:
    """When a line of a JSON log was written, in seconds since 1970."""
    stamp = msgspec.json.decode(line, type=dict[str, object])["timestamp"]
    return datetime.fromisoformat(str(stamp)).timestamp()
