"""Real worker processes on lanes of their own, fed without a bridge, writing into ``tests.fakes.recording``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import redis

from devstack.process import wait_until
from pipeline.lanes.store import RedisLaneStore, namespace_of
from pipeline.ports import Append, Tenure
from pipeline.telemetry import ProcessState, heartbeats
from tests.fakes.turns import event, row

REPO = Path(__file__).resolve().parents[2]
CONSUMER = "record"
_DEADLINE = 30.0
_CELERY = (sys.executable, "-m", "celery", "-A", "tasks.app")
_TOML = """
[deployment]
name = "{deployment}"
[sources]
[consumers.record]
handler = "{handler}"
group = {group}
lease = "{lease}"
turn_limit = "{turn_limit}"
turn_events = {turn_events}
max_failures = {max_failures}
[tasks]
include = {include}
lease = "{lease}"
"""
_NOWHERE = {
    "CONTROL_DATABASE_URL": "postgresql://127.0.0.1:1/none",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "ELASTICSEARCH_URL": "http://127.0.0.1:1",
    "REDSHIFT_URL": "redshift://127.0.0.1:1/none",
    "S3_BUCKET": "none",
}


def wait(condition: Callable[[], bool], what: str, seconds: float = _DEADLINE) -> None:
    """Wait until `condition` holds, or fail saying `what` never came."""
    assert wait_until(condition, seconds, 0.02), f"never: {what}"


@dataclass(slots=True)
class Worker:
    """One ``celery worker`` process and those it started."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """To the whole process group, as a PaaS or a kernel out of memory does."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, seconds: float = 10) -> int:
        """SIGTERM; its exit code, within the ten seconds a process has."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(seconds)

    def children(self) -> list[int]:
        """The processes of a prefork pool."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def alive(self) -> bool:
        return self.process.poll() is None


@dataclass(slots=True)
class Workshop:
    """A deployment with one consumer, ``record``: its lanes, its workers, its sink. Nobody waits for workers unless they beat."""

    redis_url: str
    deployment: str
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    sink_url: str = ""
    group: int = 10
    lease: str = "2s"
    turn_limit: str = "5m"
    turn_events: int = 20
    max_failures: int = 0  # there is no bridge to take a parked lane away
    handler: str = "tests.fakes.recording:record"
    include: list[str] = field(default_factory=list)
    beats: bool = True
    workers: list[Worker] = field(default_factory=list)
    fed: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)

    @property
    def store(self) -> RedisLaneStore:
        return RedisLaneStore(self.client, namespace_of(self.deployment, CONSUMER))

    def start(self, *options: str, pool: str = "threads", concurrency: int = 2, **variables: str) -> Worker:
        """Start a worker and wait until it consumes, or has died of a failpoint."""
        log = self.directory / f"worker{len(self.workers)}.log"
        command = [*_CELERY, "worker", "-l", "INFO", "-P", pool, "-c", str(concurrency)]
        command += ["-n", f"w{len(self.workers)}@{self.deployment}", "--without-gossip", "--without-mingle"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *(options or ("-Q", CONSUMER))],
                cwd=REPO,
                env={**self._variables(), **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        worker = Worker(process, log)
        self.workers.append(worker)
        if not self.beats:
            return worker
        wait(lambda: process.pid in self.beating() or not worker.alive(), "the worker is ready")
        assert worker.alive() or "PIPELINE_FAILPOINTS" in variables, log.read_text()
        return worker

    def fails_to_start(self, handler: str = "", **variables: str) -> str:
        """What a worker says that cannot start with this handler, or with these variables."""
        environment = {**self._variables(handler), **variables}
        done = subprocess.run(
            [*_CELERY, "worker", "-Q", CONSUMER],
            cwd=REPO,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        return done.stdout + done.stderr

    def _variables(self, handler: str = "") -> dict[str, str]:
        config = self.directory / "pipeline.toml"
        config.write_text(
            _TOML.format(
                deployment=self.deployment,
                handler=handler or self.handler,
                group=self.group,
                lease=self.lease,
                turn_limit=self.turn_limit,
                turn_events=self.turn_events,
                max_failures=self.max_failures,
                include=self.include,
            )
        )
        return {**os.environ, **_NOWHERE, **self._own(), **self.environment, "PIPELINE_CONFIG": str(config)}

    def _own(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.redis_url,
            "RECORD_URL": self.sink_url or self.redis_url,
            "RECORD_PREFIX": f"{self.deployment}:sink:",
            "PYTHONWARNINGS": "ignore",
        }

    def beating(self) -> dict[int, ProcessState]:
        """Heartbeats of this deployment's workers by pid; none while Redis is away."""
        try:
            return {state.pid: state for state in heartbeats(self.client, self.deployment)}
        except redis.ConnectionError:
            return {}

    def tally(self, name: str) -> int:
        """A figure summed over the workers' heartbeats."""
        return sum(int(state.metrics[name]) for state in self.beating().values())

    # The lanes

    def feed(self, merchants: Iterable[str], each: int = 1) -> None:
        """Append so many events to each of these merchants' lanes, as one bridge without memory would."""
        store, names = self.store, list(merchants)
        for _ in range(each):
            answers = store.add(store.epoch(), {0: Tenure(1, 0)}, [self._next(name) for name in names])
            assert not any(answer.damaged for answer in answers)

    def feed_raw(self, merchant: str, *values: bytes) -> None:
        """Append these records to a lane."""
        offsets = [self._offset(merchant) for _ in values]
        self.store.add(
            self.store.epoch(), {0: Tenure(1, 0)}, [Append(merchant, 0, None, offsets, list(values))]
        )

    def refeed(self) -> None:
        """Append everything again, as a bridge does that found Redis empty."""
        appends = [self._append(merchant, offsets) for merchant, offsets in self.fed.items()]
        self.store.add(self.store.epoch(), {0: Tenure(1, 0)}, appends)

    def _next(self, merchant: str) -> Append:
        return self._append(merchant, [self._offset(merchant)])

    def _offset(self, merchant: str) -> int:
        offset = 1 + max((offsets[-1] for offsets in self.fed.values() if offsets), default=-1)
        self.fed[merchant].append(offset)
        return offset

    @staticmethod
    def _append(merchant: str, offsets: Sequence[int]) -> Append:
        values = [
            msgspec.json.encode(event(offset + 1, row(offset), merchant=merchant)) for offset in offsets
        ]
        return Append(merchant, 0, None, list(offsets), values)

    # The sink

    @property
    def sink(self) -> redis.Redis:
        return redis.Redis.from_url(self.sink_url or self.redis_url)

    def set(self, switch: str, value: str | int | float) -> None:
        """Turn a switch of the sink; "" turns it off."""
        self.sink.set(f"{self.deployment}:sink:{switch}", value)

    def mark(self, switch: str, *merchants: str) -> None:
        """Put merchants under a switch of the sink."""
        self.sink.sadd(f"{self.deployment}:sink:{switch}", *merchants)

    def unmark(self, switch: str) -> None:
        """Take all merchants from under it."""
        self.sink.delete(f"{self.deployment}:sink:{switch}")

    def turns(self) -> list[tuple[int, list[str]]]:
        """Turns begun: token and merchants."""
        lines: list[bytes] = self.sink.lrange(f"{self.deployment}:sink:turns", 0, -1)  # type: ignore[assignment]
        split = [line.decode().split() for line in lines]
        return [(int(words[0]), words[1:]) for words in split]

    def delivered(self) -> dict[str, list[tuple[int, int]]]:
        """What the sink took, in its order: per merchant (token, offset)."""
        lines: list[bytes] = self.sink.lrange(f"{self.deployment}:sink:log", 0, -1)  # type: ignore[assignment]
        taken: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for token, merchant, *offsets in (line.decode().split() for line in lines):
            taken[merchant] += [(int(token), int(offset)) for offset in offsets]
        return taken

    def complete(self, *besides: str) -> bool:
        """True when the sink has every event, save those of these merchants."""
        delivered = self.delivered()
        return all(
            {offset for _, offset in delivered[merchant]} >= set(offsets)
            for merchant, offsets in self.fed.items()
            if merchant not in besides
        )

    def empty(self) -> bool:
        """True when every lane is acknowledged to its end."""
        lanes = self.store.lengths(self.fed)
        return not any(lanes.values()) and self.store.overview().claimed == 0

    def drained(self) -> None:
        """Wait until the sink has everything and the lanes are empty."""
        wait(lambda: self.complete() and self.empty(), "everything is accepted")

    def in_order(self) -> None:
        """Each merchant's first deliveries came in its order, without a gap."""
        for merchant, taken in self.delivered().items():
            first = list(dict.fromkeys(offset for _, offset in taken))
            assert first == self.fed[merchant][: len(first)], f"{merchant}: {first}"

    def close(self) -> None:
        """End every worker, stopped ones too."""
        for worker in self.workers:
            if worker.alive():
                worker.signal(signal.SIGCONT)
                worker.kill()


Workshops = Callable[..., Workshop]
