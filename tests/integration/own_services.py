"""A PostgreSQL with standbys, or a Kafka, of a test's own, to be stopped and killed at will."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from devstack import ports, postgres, process
from devstack.kafka.broker import Kafka
from devstack.postgres import BIN, Postgres, as_owner
from devstack.private import started
from devstack.process import wait_until
from devstack.service import Site

_PATIENCE = 30.0


def started_kafka(site: Site) -> Kafka:
    """The broker, answering; again after it was stopped or killed."""
    kafka = Kafka(site)
    started(kafka)
    return kafka


@dataclass(frozen=True, slots=True)
class Server:
    """One PostgreSQL server, primary or standby, in a directory of its own."""

    site: Site
    directory: Path
    port: int

    def url(self, database: str, user: str = "pipeline") -> str:
        """Over TCP; users `devstack` (superuser), `pipeline` and `app`."""
        password = getattr(self.site.passwords, f"postgres_{user}")
        return postgres.url(user, password, self.port, database)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with open(self.site.home.logs / f"{self.directory.name}.log", "ab") as log:
            command = [
                *as_owner(),
                str(BIN / "postgres"),
                "-D",
                str(self.directory),
                "-c",
                f"port={self.port}",
            ]
            process.spawn(
                command, Path(log.name), self.directory.parent, {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
            )
        assert wait_until(self._answers, _PATIENCE)

    def kill(self) -> None:
        """As a crash: no clean shutdown, nothing more is sent to standbys."""
        process.stop([self._pid()], signal.SIGQUIT, 20)

    def promote(self) -> None:
        """Make a standby the primary."""
        with psycopg.connect(self.url("postgres", "devstack"), autocommit=True) as session:
            assert session.execute("select pg_promote(true, 60)").fetchone() == (True,)

    def position(self) -> int:
        """How far the log is written, or replayed on a standby, in bytes."""
        with psycopg.connect(self.url("postgres", "devstack")) as session:
            row = session.execute(
                "select case when pg_is_in_recovery() then pg_last_wal_replay_lsn()"
                " else pg_current_wal_flush_lsn() end - '0/0'"
            ).fetchone()
        assert row is not None
        return int(row[0])

    def standby(self, name: str) -> "Server":
        """A running standby that streams from this server."""
        directory, port = self.directory.with_name(name), self._free_port()
        command = [
            str(BIN / "pg_basebackup"),
            "-h",
            str(self.site.home.postgres_socket),
            "-p",
            str(self.port),
        ]
        command += ["-U", postgres.SUPERUSER, "-D", str(directory), "-R", "-X", "stream", "-c", "fast"]
        done = subprocess.run(
            [*as_owner(), *command], cwd=self.directory.parent, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        made = Server(self.site, directory, port)
        made.start()
        return made

    def _free_port(self) -> int:
        return next(port for port in range(self.port + 1, self.port + 500) if ports.free(port))

    def _pid(self) -> int:
        return int((self.directory / "postmaster.pid").read_text().split()[0])

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres", "devstack"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def primary(site: Site) -> Iterator[Server]:
    """A primary that standbys may follow; all servers of the place are ended with it."""
    service = Postgres(site)
    started(service)
    with open(service.cluster / "pg_hba.conf", "a") as rules:
        rules.write(f"local replication {postgres.SUPERUSER} peer map=devstack\n")
    with service.connect() as session:
        session.execute("select pg_reload_conf()")
    try:
        yield Server(site, service.cluster, service.port)
    finally:
        for directory in service.cluster.parent.iterdir():
            process.stop(process.working_in(directory, "postgres"), signal.SIGQUIT, 20)
