"""The relay's session: through a pooler, lost with its host, and what it tells of the queue."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from devstack import ports, process
from devstack.postgres import as_owner
from devstack.process import wait_until
from pipeline.capture.queue import Queue
from pipeline.capture.rotation import maintain, rotation
from pipeline.capture.session import connect, session
from pipeline.capture.watch import Bounds, Metrics, Watch
from pipeline.errors import PermanentError
from tests.conftest import missing
from tests.integration.captured import NAME, Captured

pytestmark = pytest.mark.integration
PGBOUNCER = Path("/usr/sbin/pgbouncer")
TCP_REPAIR = 19  # linux/tcp.h: a socket closed in this mode says nothing to its peer


@pytest.fixture
def installed(captured: Captured) -> Captured:
    captured.run("create table t (id bigint primary key, merchant_id integer)")
    captured.install(t="merchant_id")
    return captured


@contextmanager
def pooled(url: str, mode: str) -> Iterator[str]:
    """PgBouncer before a database; the URL of the same database through it."""
    if not PGBOUNCER.exists():
        missing("pgbouncer is not installed: run `make setup`")
    parts = urlsplit(url)
    port = next(port for port in range(28000, 29000) if ports.free(port))
    directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port} user={parts.username} password={parts.password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = {mode}\n"
        "unix_socket_dir =\n"
    )
    if os.geteuid() == 0:
        for path in (directory, directory / "pgbouncer.ini"):
            shutil.chown(path, "postgres", "postgres")
    command = [*as_owner(), str(PGBOUNCER), "-q", str(directory / "pgbouncer.ini")]
    child = process.spawn(command, directory / "log", directory, {"PATH": os.defpath})
    try:
        assert wait_until(lambda: not ports.free(port), 10)
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
    finally:
        child.terminate()
        child.wait(10)
        shutil.rmtree(directory)


def test_a_pooler_in_session_mode_is_no_obstacle(installed: Captured) -> None:
    with pooled(installed.source.url, "session") as url, session(url) as connection:
        queue = Queue(connection)
        assert queue.acquire() and queue.holds_lock()
        installed.run("insert into t values (1, 6)")
        queue.tick()
        assert [event.key for event in installed.batches(queue)] == [{"id": 1}]
        assert queue.holds_lock()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_without_sessions_is_refused_and_nothing_is_set_in_it(
    installed: Captured, mode: str
) -> None:
    # Mutants: without the look the lock is left to whoever comes next; with the settings first, so are they.
    with pooled(installed.source.url, mode) as url:
        with pytest.raises(PermanentError, match="pooler in transaction or statement mode"):
            connect(url)
        with psycopg.connect(url, autocommit=True) as application:
            assert application.execute("show search_path").fetchone() == ('"$user", public',)


def test_the_lock_of_a_relay_whose_host_vanished_is_free_within_seconds(installed: Captured) -> None:
    # Mutant: without the session's keepalives the server holds the lock for the two hours of the kernel's default.
    gone = connect(installed.source.url)
    assert Queue(gone).acquire()
    wire = socket.socket(fileno=os.dup(gone.fileno()))
    try:
        wire.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    except PermissionError:
        pytest.skip("a silent end of a connection needs CAP_NET_ADMIN")
    os.close(gone.fileno())
    wire.close()
    gone.close()
    with session(installed.source.url) as connection:
        standby = Queue(connection)
        assert not standby.acquire()
        assert wait_until(standby.acquire, 15, pause=0.2)


def test_a_session_that_lost_the_lock_knows_it(installed: Captured) -> None:
    with session(installed.source.url) as connection:
        queue = Queue(connection)
        assert not queue.holds_lock()
        assert queue.acquire() and queue.holds_lock()
        connection.execute("select pg_advisory_unlock_all()")
        assert not queue.holds_lock()


def overdue(captured: Captured) -> None:
    with psycopg.connect(captured.source.admin_url, autocommit=True) as admin:
        admin.execute("update pgq.queue set queue_switch_time = now() - interval '2 hours'")


def test_what_blocks_a_rotation_is_named(installed: Captured) -> None:
    # Mutants: each of the three kinds of blockers left out; other databases' transactions.
    gid = f"{installed.source.name}-2"
    with session(installed.source.url) as connection, installed.writer() as writer:
        queue = Queue(connection)

        def rotated() -> str:
            """Rotate, go on a little; what is in the way of the next rotation then."""
            overdue(installed)
            maintain(connection)
            queue.tick()
            list(installed.batches(queue))
            overdue(installed)
            state = rotation(connection)
            assert state.overdue_seconds > 5000
            return state.blocked_by

        queue.tick()
        list(installed.batches(queue))
        assert wait_until(lambda: rotated() == "", 20)
        with writer.transaction():
            writer.execute("insert into t values (1, 6)")
            named = f"session {writer.info.backend_pid} of app (-), idle in transaction since"
            assert wait_until(lambda: named in rotated(), 20)
        assert wait_until(lambda: rotated() == "", 20)
        with installed.database.transaction() as elsewhere:
            elsewhere.execute("insert into sources (name, identity, generation) values ('other', 'x', 1)")
            found = rotated()
            assert (
                f"session {elsewhere.info.backend_pid} of pipeline" in found
                and " in database control" in found
            )
        assert wait_until(lambda: rotated() == "", 20)
        overdue(installed)
        maintain(connection)
        overdue(installed)
        assert wait_until(lambda: rotation(connection).blocked_by == "the relay, which is behind", 20)
        assert wait_until(lambda: rotated() == "", 20)
        writer.execute("begin; insert into t values (2, 6)")
        writer.execute(f"prepare transaction '{gid}'".encode())
        assert wait_until(lambda: f"prepared transaction {gid} of app since" in rotated(), 20)
        writer.execute(f"commit prepared '{gid}'".encode())
        assert wait_until(lambda: rotated() == "", 20)


def test_alarms_begin_and_end_with_what_they_are_about(installed: Captured) -> None:
    with session(installed.source.url) as connection:
        queue, metrics = Queue(connection), Metrics()
        watch = Watch(NAME, Bounds(0.0, 1), metrics)
        installed.run("insert into t values (1, 6)")
        watch.look(queue)
        assert "1 events wait" in metrics.alarms
        watch.look_closely(queue)
        assert f"the queue holds {metrics.queue_bytes} bytes" in metrics.alarms and metrics.queue_bytes > 1
        queue.tick()
        list(installed.batches(queue))
        watch.look(queue)
        assert "events wait" not in metrics.alarms
        Watch(NAME, Bounds(0.0, 1 << 40), metrics).look_closely(queue)
        assert metrics.alarms == ""
