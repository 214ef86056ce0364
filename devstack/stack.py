"""The list of services, and bringing them up and down together."""

import fcntl
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from devstack import dotenv, passwords, ports, postgres, process, s3, standin
from devstack.elasticsearch.node import Elasticsearch
from devstack.home import Home
from devstack.kafka.broker import Kafka
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.s3 import S3
from devstack.service import NotReady, Service, Site, Unavailable
from devstack.standin import Redshift

CLASSES: tuple[type[Service], ...] = (Postgres, Redis, Kafka, Elasticsearch, S3, Redshift)
SOURCES = ("gateway0", "gateway1", "funding", "apply")
GRACE = 20.0  # seconds a service has to stop by itself

# Called with a service's name and what it does now.
Report = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A service that did not come up: why, the end of its log, and what to do."""

    service: str
    reason: str
    log: Sequence[str]
    hint: str


@dataclass(frozen=True, slots=True)
class State:
    """What `status` says of a service. `rss` is in bytes; `health` is "ok", "down" or what is wrong."""

    service: str
    port: int
    pid: int | None
    version: str
    rss: int
    health: str


def services(home: Home) -> list[Service]:
    """Every service of this clone, on the ports it has or will have."""
    home.state.mkdir(mode=0o755, exist_ok=True)
    home.logs.mkdir(exist_ok=True)
    known = passwords.load(home.secrets)
    unplaced = Site(home, {}, known)
    up = {kind.name for kind in CLASSES if kind(unplaced).running()}
    chosen = ports.choose(
        home.state / "ports.json",
        ports.settings(home.dotenv),
        lambda name: name.partition("_")[0] in up,
        str(home.repo),
    )
    site = Site(home, chosen, known)
    return [kind(site) for kind in CLASSES]


@contextmanager
def locked(home: Home) -> Iterator[None]:
    """One `up`, `down` or `reset` of a clone at a time. The kernel lets go of the lock when its holder dies."""
    home.state.mkdir(mode=0o755, exist_ok=True)
    with open(home.state / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def up(home: Home, report: Report) -> list[Failure]:
    """Bring every service up, all at once, and write `.env`. Returns those that failed."""
    with locked(home):
        wanted = services(home)
        dotenv.write(home.dotenv, variables(wanted[0].site))
        return start(wanted, report)


def start(wanted: Sequence[Service], report: Report) -> list[Failure]:
    """Bring these services up; those they need must be among them."""
    return _Start(wanted, report).run()


class _Start:
    """One `up`: a thread per service, each waiting for those it needs."""

    def __init__(self, wanted: Sequence[Service], report: Report) -> None:
        self._wanted = wanted
        self._report = report
        self._done = {service.name: threading.Event() for service in wanted}
        self._failed: dict[str, Failure] = {}

    def run(self) -> list[Failure]:
        with ThreadPoolExecutor(len(self._wanted)) as pool:
            list(pool.map(self._one, self._wanted))
        return [self._failed[service.name] for service in self._wanted if service.name in self._failed]

    def _one(self, service: Service) -> None:
        started_at = service.log.stat().st_size if service.log.exists() else 0
        try:
            self._await_needs(service)
            self._report(service.name, f"ready, {self._bring_up(service)}, port {service.port}")
        except Unavailable as error:
            log = process.tail(service.log, 15, started_at)
            self._failed[service.name] = Failure(service.name, str(error), log, error.hint)
            self._report(service.name, "failed")
        finally:
            self._done[service.name].set()

    def _await_needs(self, service: Service) -> None:
        for need in service.needs:
            self._report(service.name, f"waits for {need}")
            self._done[need].wait()
            if need in self._failed:
                raise Unavailable(f"it needs {need}, which is not up", f"See {need}.")

    def _bring_up(self, service: Service) -> str:
        if service.running():
            self._report(service.name, "runs already")
            with suppress(_Gone):  # it was being killed as we looked
                return self._settled(service)
        self._report(service.name, "preparing")
        service.prepare(lambda text: self._report(service.name, text))
        self._report(service.name, "starting")
        child = process.spawn(service.command(), service.log, service.cwd, service.environment())
        try:
            return self._settled(service, child)
        except _Gone as error:
            raise Unavailable(f"it ended with exit code {child.returncode}", _hint(service)) from error

    def _settled(self, service: Service, child: process.Child | None = None) -> str:
        deadline = time.monotonic() + service.patience
        while True:
            try:
                version = service.probe()
            except NotReady as answer:
                if _ended(service, child):
                    raise _Gone from answer
                if time.monotonic() > deadline:
                    text = f"not ready after {service.patience:.0f} s: {answer}"
                    raise Unavailable(text, _hint(service)) from answer
                time.sleep(0.1)
            else:
                service.settle()
                return version


class _Gone(Exception):
    """The process ended before it answered."""


def _ended(service: Service, child: process.Child | None) -> bool:
    return child.poll() is not None if child else service.running() is None


def _hint(service: Service) -> str:
    return f"See {service.log}; `python -m devstack down` and `up` again; `reset` starts from nothing."


def down(home: Home, report: Report) -> bool:
    """Stop everything of this clone: what `run` runs, then the services. False when something could not be stopped."""
    with locked(home):
        wanted = services(home)
        supervisors = [pid for pid in process.pids() if _is_supervisor(pid, home.repo)]
        if supervisors:
            report("run", "stopping")
            process.stop(supervisors, signal.SIGTERM, GRACE)
        last = [service for service in wanted if service.needs]
        first = [service for service in wanted if not service.needs]
        for group in (last, first):
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda service: stop(service, report), group))
        return not any(service.running() or service.remnants() for service in wanted)


def _is_supervisor(pid: int, repo: Path) -> bool:
    words = process.argv_of(pid)
    return words[1:4] == ["-m", "devstack", "run"] and process.cwd_of(pid) == str(repo)


def stop(service: Service, report: Report) -> None:
    """Stop one service: politely, then with SIGKILL."""
    pid = service.running()
    if pid is None and not service.remnants():
        report(service.name, "was not running")
        return
    report(service.name, "stopping")
    forced = process.stop([pid] if pid else [], service.stop_signal, GRACE)
    process.stop(service.remnants(), signal.SIGQUIT, grace=5)
    report(service.name, f"killed after {GRACE:.0f} s" if forced else "stopped")


def reset(home: Home, report: Report) -> bool:
    """Stop everything and delete all data, ports, passwords and our block of `.env`; fetched jars stay."""
    wanted = services(home)
    kept = [place for service in wanted for place in (service.data, home.state / service.name) if place]
    if not down(home, report):
        return False
    with locked(home):
        places = [*kept, home.postgres_socket, home.logs, home.state / "run"]
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
        for file in (home.secrets, home.state / "ports.json"):
            file.unlink(missing_ok=True)
        dotenv.remove(home.dotenv)
    return True


def status(home: Home) -> list[State]:
    """What every service is doing now."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_state, services(home)))


def _state(service: Service) -> State:
    pid = service.running()
    version, health = "", "down"
    if pid:
        try:
            version, health = service.probe(), "ok"
        except NotReady as answer:
            health = str(answer)
    family = [pid, *process.children(pid)] if pid else []
    return State(service.name, service.port, pid, version, sum(map(process.resident, family)), health)


def variables(site: Site) -> dict[str, str]:
    """What `.env` says: where everything is and how to get in."""
    port, known = site.ports, site.passwords
    bundle = Redshift(site).bundle

    def pipeline(database: str) -> str:
        return postgres.url("pipeline", known.postgres_pipeline, port["postgres"], database)

    sources = {f"{source.upper()}_DATABASE_URL": pipeline(source) for source in SOURCES}
    return {
        "CONTROL_DATABASE_URL": pipeline("control"),
        **sources,
        "DEVSTACK_POSTGRES_URL": postgres.url(
            postgres.SUPERUSER, known.postgres_devstack, port["postgres"], "postgres"
        ),
        "EXAMPLE_WRITER_URL": postgres.url("app", known.postgres_app, port["postgres"], "postgres"),
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port['kafka']}",
        "REDIS_URL": f"redis://:{known.redis}@127.0.0.1:{port['redis']}/0",
        "ELASTICSEARCH_URL": f"http://127.0.0.1:{port['elasticsearch']}",
        "REDSHIFT_URL": f"redshift://{standin.USER}:{known.redshift}@localhost:{port['redshift']}/{standin.DATABASE}",
        "SSL_CERT_FILE": str(bundle),
        "S3_BUCKET": s3.BUCKET,
        "AWS_ENDPOINT_URL": S3(site).url,
        "AWS_ACCESS_KEY_ID": s3.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": s3.SECRET_KEY,
        "AWS_DEFAULT_REGION": s3.REGION,
        "PORT": str(port["web"]),
        "FLOWER_PORT": str(port["flower"]),
    }
