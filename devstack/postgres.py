"""PostgreSQL 15 with PgQ: a cluster of our own, its users, and how a DBA makes a database for the pipeline to read."""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, ClassVar, LiteralString

import psycopg
from psycopg import sql

from devstack import process
from devstack.service import NotReady, Say, Service, Unavailable

BIN = Path("/usr/lib/postgresql/15/bin")
EXTENSION = Path("/usr/share/postgresql/15/extension/pgq.control")
SUPERUSER = "devstack"

CONFIGURATION = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{socket}'
unix_socket_permissions = 0777
shared_buffers = 256MB
max_connections = 200
max_prepared_transactions = 20
wal_level = replica
max_wal_size = 2GB
fsync = on
synchronous_commit = on
password_encryption = scram-sha-256
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d '
timezone = 'UTC'
"""
# The superuser comes in by the socket as the user who runs the stack; everybody else shows a password everywhere.
HBA = """\
local all {superuser} peer map=devstack
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""


class Postgres(Service):
    """The sources' server, the control database's, and the one beneath the Redshift stand-in."""

    __slots__ = ()
    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = (
        signal.SIGINT
    )  # "fast": ends the sessions, then shuts down cleanly

    @property
    def data(self) -> Path:
        """The cluster's parent directory."""
        return self.site.home.postgres

    @property
    def cluster(self) -> Path:
        """PGDATA."""
        return self.data / "data"

    @property
    def socket(self) -> Path:
        """The directory of its socket."""
        return self.site.home.postgres_socket

    @property
    def cwd(self) -> Path:
        """The clone may lie where user postgres cannot go."""
        return self.data

    @property
    def identity(self) -> process.Identity:
        """`postgres -D <our cluster>`."""
        return process.Identity("postgres", ("-D", str(self.cluster)))

    def prepare(self, say: Say) -> None:
        """Make the cluster once, write its configuration at every start."""
        if not (BIN / "postgres").exists() or not EXTENSION.exists():
            raise Unavailable("PostgreSQL 15 with PgQ 3 is not installed", "Run `make setup`.")
        for directory in (self.data, self.socket):
            _own(directory)
        if not (self.cluster / "PG_VERSION").exists():
            say("making the cluster")
            self._initdb()
        self._configure()
        self._clear_away()

    def _initdb(self) -> None:
        fresh = (
            self.data / "data.new"
        )  # renamed when complete: a killed initdb leaves nothing that looks like a cluster
        shutil.rmtree(fresh, ignore_errors=True)
        flags = ["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--auth=reject"]
        command = [*as_owner(), str(BIN / "initdb"), "-D", str(fresh), f"--username={SUPERUSER}", *flags]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=self.cwd, env=self.environment()
        )
        if done.returncode:
            raise Unavailable(f"initdb failed:\n{done.stderr.strip()}", f"Look at {self.data}.")
        shutil.rmtree(self.cluster, ignore_errors=True)
        fresh.rename(self.cluster)

    def _configure(self) -> None:
        users = {"root", "postgres", pwd.getpwuid(os.geteuid()).pw_name}
        files = {
            "devstack.conf": CONFIGURATION.format(port=self.port, socket=self.socket),
            "postgresql.conf": "include 'devstack.conf'\n",
            "pg_hba.conf": HBA.format(superuser=SUPERUSER),
            "pg_ident.conf": "".join(f"devstack {user} {SUPERUSER}\n" for user in sorted(users)),
        }
        for name, text in files.items():
            (self.cluster / name).write_text(text)
            shutil.chown(self.cluster / name, _owner())

    def _clear_away(self) -> None:
        """Backends of a killed server end before the next one starts, and its lock files go.

        PostgreSQL clears them itself, save when their number belongs to another process now, or to the killed one that
        nobody has reaped. With no process left in the data directory they are certainly stale.
        """
        if self.running():
            return
        process.stop(self.remnants(), signal.SIGQUIT, grace=5)
        locks = [self.cluster / "postmaster.pid", *self.socket.glob(".s.PGSQL.*.lock")]
        for lock in locks:
            if not self.remnants() and _names_a_process(lock):
                lock.unlink()

    def remnants(self) -> list[int]:
        """Everything that works in the data directory."""
        return process.working_in(self.cluster, "postgres")

    def command(self) -> list[str]:
        """The server, as user postgres when we are root."""
        return [*as_owner(), str(BIN / "postgres"), "-D", str(self.cluster)]

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's PG* variables."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A superuser's session by the socket, in autocommit."""
        where = {"host": str(self.socket), "port": self.port, "user": SUPERUSER, "dbname": database}
        return psycopg.connect(**where, autocommit=True, connect_timeout=3)  # type: ignore[arg-type]

    def probe(self) -> str:
        """A query; PgQ has to be on offer."""
        try:
            with self.connect() as session:
                row = session.execute(
                    "select current_setting('server_version'), default_version"
                    " from pg_available_extensions where name = 'pgq'"
                ).fetchone()
        except psycopg.Error as error:
            raise NotReady(str(error)) from error
        if row is None:
            raise NotReady("the server does not offer the extension pgq")
        return f"{row[0].split()[0]} + PgQ {row[1]}"

    def settle(self) -> None:
        """Users, their passwords, and the databases that the stack itself owns."""
        with self.connect() as session:
            for database in (SUPERUSER, "warehouse"):
                _make_database(session, database, SUPERUSER)
            with self.connect(SUPERUSER) as own:
                own.execute(
                    "create extension if not exists pgq"
                )  # makes the roles pgq_admin, pgq_reader, pgq_writer
            passwords = self.site.passwords
            _make_user(session, SUPERUSER, passwords.postgres_devstack)
            _make_user(session, "app", passwords.postgres_app)
            _make_user(session, "pipeline", passwords.postgres_pipeline)
            session.execute("grant app, pgq_admin, pg_monitor to pipeline")
            _make_database(session, "control", "pipeline")


def _names_a_process(lock: Path) -> bool:
    """True when the number in a lock file is some process's, so that PostgreSQL would give way to it."""
    number = lock.read_text().partition("\n")[0].strip() if lock.exists() else ""
    return bool(number) and (process.PROC / number.lstrip("-")).exists()


def _owner() -> str:
    return "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def as_owner() -> list[str]:
    """What to put before a command that PostgreSQL's user has to run."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--inh-caps=-all", "--"]


def _own(directory: Path) -> None:
    """Make a directory that only the server's user can enter; root can anyway."""
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid not in (os.geteuid(), pwd.getpwnam(_owner()).pw_uid):
        raise Unavailable(f"{directory} belongs to somebody else", "Remove it, then try again.")
    shutil.chown(directory, _owner(), _owner() if os.geteuid() == 0 else None)


def _make_database(session: psycopg.Connection[Any], name: str, owner: str) -> None:
    if session.execute("select from pg_database where datname = %s", [name]).fetchone() is None:
        statement = sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(owner))
        session.execute(statement)


def _make_user(session: psycopg.Connection[Any], name: str, password: str) -> None:
    """Make or update a user. The password travels as its hash, so no log of the server can hold it."""
    verb: LiteralString = "alter" if _exists(session, name) else "create"
    hashed = session.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    session.execute(
        sql.SQL("{} role {} login password {}").format(
            sql.SQL(verb), sql.Identifier(name), sql.Literal(hashed)
        )
    )


def _exists(session: psycopg.Connection[Any], role: str) -> bool:
    return session.execute("select from pg_roles where rolname = %s", [role]).fetchone() is not None


def create_database(url_admin: str, name: str) -> None:
    """Make a source database as a DBA would: owner `app`, with PgQ, and `pipeline` free to add its schema.

    A database of that name is dropped first, whoever is connected. `url_admin` is a superuser's URL.
    """
    with psycopg.connect(url_admin, autocommit=True) as session:
        drop_database(url_admin, name)
        session.execute(sql.SQL("create database {} owner app").format(sql.Identifier(name)))
        session.execute(
            sql.SQL("grant create, connect on database {} to pipeline").format(sql.Identifier(name))
        )
    with psycopg.connect(url_admin, dbname=name, autocommit=True) as session:
        session.execute("create extension pgq")
        _harden(session)


def _harden(session: psycopg.Connection[Any]) -> None:
    """Fix the search_path of PgQ's SECURITY DEFINER functions; capture advises it, only their owner can do it."""
    found = session.execute(
        "select format('alter function %s set search_path = pg_catalog, pg_temp', oid::regprocedure) from pg_proc"
        " where pronamespace = 'pgq'::regnamespace and prosecdef"
    )
    for (statement,) in found.fetchall():
        session.execute(statement)


def drop_database(url_admin: str, name: str) -> None:
    """Drop a database if it exists, ending the sessions in it."""
    with psycopg.connect(url_admin, autocommit=True) as session:
        session.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def url(user: str, password: str, port: int, database: str) -> str:
    """A connection URL over TCP."""
    return f"postgresql://{user}:{password}@127.0.0.1:{port}/{database}"
