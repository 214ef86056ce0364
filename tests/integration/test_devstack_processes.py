"""Services of a stack of the test's own: whatever was killed, the next start works."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from devstack import passwords, ports, process, stack
from devstack.home import Home, here
from devstack.kafka.broker import Kafka
from devstack.postgres import Postgres, as_owner
from devstack.process import wait_until
from devstack.redis import Redis
from devstack.s3 import S3
from devstack.service import Service, Site

pytestmark = pytest.mark.integration
PATIENCE = 20.0


def silent(service: str, text: str) -> None:
    """A report nobody reads."""


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A stack's place beside the clone's, with the jars the clone has fetched."""
    request.getfixturevalue("stack")
    home = Home(tmp_path)
    home.logs.mkdir(parents=True)
    (home.state / "java").symlink_to(here().state / "java")
    made = Site(
        home,
        ports.choose(home.state / "ports.json", {}, lambda _: False, str(tmp_path)),
        passwords.load(home.secrets),
    )
    yield made
    for kind in (Redis, S3, Postgres, Kafka):
        stack.stop(kind(made), silent)
    for place in (home.postgres, home.postgres_socket):
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def started(site: Site) -> Callable[[type[Service]], Service]:
    """Starts one service."""

    def start(kind: type[Service]) -> Service:
        service = kind(site)
        assert stack.start([service], silent) == []
        return service

    return start


def pid_of(service: Service) -> int:
    pid = service.running()
    assert pid is not None
    return pid


@pytest.mark.parametrize("kind", [Redis, Postgres, Kafka])
def test_a_killed_service_starts_again(
    kind: type[Service], started: Callable[[type[Service]], Service]
) -> None:
    service = started(kind)
    first = pid_of(service)
    assert pid_of(started(kind)) == first, "a second start leaves a running service alone"
    os.kill(first, signal.SIGKILL)
    assert pid_of(started(kind)) != first


def test_backends_of_a_killed_postgres_end_before_the_next_starts(
    started: Callable[[type[Service]], Service],
) -> None:
    # Mutant: without _clear_away the server refuses to start while the stopped backend lives.
    service = started(Postgres)
    assert isinstance(service, Postgres)
    with psycopg.connect(
        host=str(service.socket), port=service.port, user="devstack", dbname="postgres"
    ) as session:
        backend = session.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        os.kill(pid_of(service), signal.SIGKILL)
        started(Postgres)
        assert wait_until(lambda: not process.alive(backend), PATIENCE)
        session.close()


def test_lock_files_with_a_recycled_number_are_no_obstacle(
    started: Callable[[type[Service]], Service],
) -> None:
    # Mutant: without _names_a_process PostgreSQL takes the other process for a server.
    service = started(Postgres)
    assert isinstance(service, Postgres)
    lock = service.cluster / "postmaster.pid"
    text = lock.read_text()
    stack.stop(service, silent)
    with subprocess.Popen([*as_owner(), "sleep", "1000"], cwd="/") as another:
        try:
            assert wait_until(lambda: process.argv_of(another.pid)[:1] == ["sleep"], PATIENCE)
            for path in (lock, service.socket / f".s.PGSQL.{service.port}.lock"):
                path.write_text(text.replace(text.partition("\n")[0], str(another.pid), 1))
            started(Postgres)
        finally:
            another.kill()


def test_a_process_that_only_names_the_file_is_not_the_service(site: Site) -> None:
    redis = Redis(site)
    assert not redis.identity.matches(["less", str(redis.configuration)])
    assert redis.identity.matches(["/usr/bin/redis-server", str(redis.configuration)])
    assert not redis.identity.matches([])


def test_a_service_that_fails_says_why(started: Callable[[type[Service]], Service], site: Site) -> None:
    started(Redis)
    taken = Site(site.home, {**site.ports, "s3": site.ports["redis"]}, site.passwords)
    (failure,) = stack.start([S3(taken)], silent)
    assert failure.service == "s3"
    assert "exit code" in failure.reason
    assert any("in use" in line for line in failure.log)
