"""Servers beside the clone's, for whoever stops and kills them at will: on ports and in a directory of their own."""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from devstack import passwords, ports, process, stack
from devstack.home import Home, here
from devstack.kafka.broker import Kafka
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.service import Service, Site

_KINDS: Sequence[type[Service]] = (Postgres, Redis, Kafka)


@contextmanager
def own_site(directory: Path) -> Iterator[Site]:
    """A stack's place beside the clone's, with the jars the clone has fetched; what runs there is stopped at the end."""
    home = Home(directory)
    home.logs.mkdir(parents=True)
    (home.state / "java").symlink_to(here().state / "java")
    chosen = ports.choose(home.state / "ports.json", {}, lambda _: False, str(directory))
    site = Site(home, chosen, passwords.load(home.secrets))
    try:
        yield site
    finally:
        for kind in _KINDS:
            stack.stop(kind(site), _silent)
        for place in (home.postgres, home.postgres_socket):
            shutil.rmtree(place, ignore_errors=True)


def started(*services: Service) -> None:
    """These services answer; again after they were stopped or killed. Unavailable when one does not."""
    failed = stack.start(services, _silent)
    if failed:
        raise RuntimeError("; ".join(f"{one.service}: {one.reason}" for one in failed))


def killed(service: Service) -> None:
    """kill -9, if it runs."""
    pid = service.running()
    if pid is not None:
        process.stop([pid], signal.SIGKILL, 10)


@dataclass(frozen=True, slots=True)
class OwnServers:
    """A Redis and a Kafka that nobody else uses; ``variables`` say where they are."""

    variables: Mapping[str, str]
    restart_redis: Callable[[], None]
    restart_kafka: Callable[[], None]


@contextmanager
def own_servers(directory: Path) -> Iterator[OwnServers]:
    """Start a Redis and a Kafka in a new directory; both are stopped at the end."""
    with own_site(directory) as site:
        redis, kafka = Redis(site), Kafka(site)
        started(redis, kafka)
        ends = threading.Event()
        try:
            yield OwnServers(
                {
                    "REDIS_URL": f"redis://:{site.passwords.redis}@127.0.0.1:{redis.port}/0",
                    "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka.port}",
                },
                lambda: _restart(redis, 1.5, ends),
                lambda: _restart(kafka, 0.0, ends),
            )
        finally:
            ends.set()
            for service in (redis, kafka):  # nothing in them is wanted any more
                killed(service)


def _restart(service: Service, pause: float, ends: threading.Event) -> None:
    """kill -9, and up again after so many seconds, however long that takes."""
    killed(service)
    ends.wait(pause)
    while not ends.is_set():
        with suppress(RuntimeError):
            started(service)
            return


def _silent(service: str, text: str) -> None:
    """A report nobody reads."""
