"""The five ways in which Celery on kombu's own Redis transport loses messages or their order: lanes do neither.

Each test runs twice, with the same fault at the same moment. On kombu's own transport it must fail in the way it is about
(strictly: a newer kombu that passes makes itself heard), on lanes it must pass.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from celery import Celery

from tests.fakes.numbered import QUEUE
from tests.fakes.workers import CONSUMER, REPO, Worker, Workshop, wait

pytestmark = pytest.mark.integration
_PREFETCH = 4
_ATTEMPTS = 50


class LostOrReorderedError(AssertionError):
    """What came last is done, and something before it is not, or was done after it."""


@dataclass(slots=True)
class Sink:
    """What the workers say and are told, in Redis."""

    client: redis.Redis
    prefix: str
    published: int = 0

    def numbers(self, name: str) -> list[int]:
        """Numbers `begun` or `done`, each where it came first."""
        found: Any = self.client.lrange(f"{self.prefix}{name}", 0, -1)
        return list(dict.fromkeys(map(int, found)))

    def hold(self, number: int) -> None:
        """The number is begun and not done until it is released."""
        self.client.sadd(f"{self.prefix}held", number)

    def release(self, number: int) -> None:
        self.client.srem(f"{self.prefix}held", number)

    def kill_at(self, number: int) -> None:
        """The process that begins this number is killed, once."""
        self.client.sadd(f"{self.prefix}deadly", number)

    def begun(self, number: int) -> None:
        """Wait until it is."""
        wait(lambda: number in self.numbers("begun"), f"{number} is begun")

    def judge(self) -> None:
        """Once the last number is done, all must be, in their order."""
        wait(lambda: self.published in self.numbers("done"), "the last one is done")
        done = self.numbers("done")
        if done != list(range(1, self.published + 1)):
            raise LostOrReorderedError(f"done: {done} of 1 to {self.published}")

    def variables(self, url: str) -> dict[str, str]:
        """Where ``tests.fakes.numbered`` finds this."""
        return {"NUMBERED_URL": url, "NUMBERED_PREFIX": self.prefix}


class Rig(Protocol):
    """Numbers 1, 2, … to be done in this order, and workers, each with one process for it."""

    sink: Sink
    queue: str
    prefetched: int  # how many a worker takes out of the broker beforehand, beside the one it does

    @property
    def app(self) -> Celery:
        """Sends remote control."""

    def publish(self, count: int) -> None:
        """Send the next numbers."""

    def start(self, *, prefetch: int = 1, reject: bool = True) -> Worker:
        """Start a worker. `reject`: what a killed process had in hand goes back (``task_reject_on_worker_lost``)."""

    def waiting(self) -> int:
        """Numbers in the broker."""

    def answered(self, waiting: int) -> bool:
        """True when a poll was answered since so many were waiting, whether the worker has read it or not."""


def _publisher(url: str, prefix: str) -> Celery:
    app = Celery("publisher", broker=url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": prefix, "priority_steps": [0]}
    return app


@dataclass(slots=True)
class Stock:
    """A queue of kombu's own transport."""

    sink: Sink
    url: str
    directory: Path
    queue: str = QUEUE
    prefetched: int = _PREFETCH - 1
    workers: list[Worker] = field(default_factory=list)

    @property
    def app(self) -> Celery:
        return _publisher(self.url, self.sink.prefix)

    def publish(self, count: int) -> None:
        with self.app as app:
            for _ in range(count):
                self.sink.published += 1
                app.send_task("work", args=(self.sink.published,), queue=QUEUE)

    def start(self, *, prefetch: int = 1, reject: bool = True) -> Worker:
        name, ready = f"stock{len(self.workers)}", self._ready()
        log = self.directory / f"{name}.log"
        command = [sys.executable, "-m", "celery", "-A", "tests.fakes.numbered:app", "worker", "-c", "1"]
        command += ["-n", f"{name}@{self.sink.prefix}", "-Q", f"{QUEUE},other", "--without-gossip"]
        chosen = {
            "NUMBERED_STOCK": "1",
            "NUMBERED_REJECT": str(int(reject)),
            "NUMBERED_PREFETCH": str(prefetch),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--without-mingle"],
                cwd=REPO,
                env={**os.environ, **self.sink.variables(self.url), **chosen, "PYTHONWARNINGS": "ignore"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(Worker(process, log))
        wait(lambda: self._ready() > ready, "the worker is ready")
        return self.workers[-1]

    def _ready(self) -> int:
        return int(self.sink.client.llen(f"{self.sink.prefix}ready"))

    def waiting(self) -> int:
        return int(self.sink.client.llen(f"{self.sink.prefix}{QUEUE}"))

    def answered(self, waiting: int) -> bool:
        return self.waiting() < waiting

    def close(self) -> None:
        for worker in self.workers:
            if worker.alive():
                worker.signal(signal.SIGCONT)
                worker.kill()


@dataclass(slots=True)
class Lanes:
    """One merchant's lane, one event a turn."""

    sink: Sink
    shop: Workshop
    queue: str = CONSUMER
    prefetched: int = 0  # nothing leaves a lane before it is done

    @property
    def app(self) -> Celery:
        return _publisher(self.shop.redis_url, f"{self.shop.deployment}:")

    def publish(self, count: int) -> None:
        self.shop.feed(["6"], each=count)
        self.sink.published += count

    def start(self, *, prefetch: int = 1, reject: bool = True) -> Worker:
        options = ("-Q", f"{CONSUMER},other", "--prefetch-multiplier", str(prefetch))
        return self.shop.start(*options, pool="prefork", concurrency=1)

    def waiting(self) -> int:
        return self.shop.store.lengths(["6"])["6"]

    def answered(self, waiting: int) -> bool:
        return not self.shop.client.exists(self.shop.store.bell)

    def close(self) -> None:
        self.shop.close()


@pytest.fixture(
    params=[
        pytest.param("stock", marks=pytest.mark.xfail(raises=LostOrReorderedError, strict=True)),
        "lanes",
    ]
)
def rig(
    request: pytest.FixtureRequest, redis_url: str, redis_namespace: str, tmp_path: Path
) -> Iterator[Rig]:
    with redis.Redis.from_url(redis_url) as client:
        sink = Sink(client, f"{redis_namespace}numbered:")
        made: Stock | Lanes
        if request.param == "stock":
            made = Stock(sink, redis_url, tmp_path)
        else:
            deployment, variables = redis_namespace.rstrip(":"), sink.variables(redis_url)
            shop = Workshop(redis_url, deployment, tmp_path, variables, lease="1s", turn_events=1)
            shop.handler = "tests.fakes.numbered:handle"
            made = Lanes(sink, shop)
        yield made
        made.close()


def _freeze(rig: Rig, worker: Worker) -> bool:
    """Stop the worker and publish; True when that answered its poll, so that the answer lies unread in its socket."""
    worker.signal(signal.SIGSTOP)
    before = rig.waiting()
    rig.publish(1)
    return rig.answered(before + 1)


def test_an_answer_that_a_killed_worker_never_read(rig: Rig) -> None:
    """kombu pops a message before it notes it as unacknowledged: in between it is in the worker's socket only."""
    worker = rig.start()
    for _ in range(_ATTEMPTS):
        if _freeze(rig, worker):
            break
        worker.signal(signal.SIGCONT)
        rig.sink.judge()
    else:
        pytest.fail("no poll was ever outstanding")
    worker.kill()
    rig.start()
    rig.publish(1)
    rig.sink.judge()


@pytest.mark.parametrize("reject", [True, False])
def test_a_pool_process_that_is_killed(rig: Rig, reject: bool) -> None:
    """kombu sends what it had in hand to the tail of the queue (`reject`), or takes it for done."""
    rig.sink.kill_at(1)
    rig.publish(5)
    rig.start(reject=reject)
    rig.sink.judge()


def test_a_worker_that_is_asked_to_stop(rig: Rig) -> None:
    """kombu puts what was prefetched back in reverse."""
    rig.sink.hold(1)
    rig.publish(8)
    worker = rig.start(prefetch=_PREFETCH)
    rig.sink.begun(1)
    left = 8 - rig.prefetched - (1 if rig.prefetched else 0)
    wait(lambda: rig.waiting() == left, "the worker has prefetched")
    os.kill(worker.pid, signal.SIGTERM)
    rig.sink.release(1)
    worker.process.wait(20)
    rig.start()
    rig.sink.judge()


def test_a_worker_that_is_killed(rig: Rig) -> None:
    """kombu hides what the worker had in hand until the visibility timeout; the rest of the queue overtakes it."""
    rig.sink.hold(1)
    rig.publish(5)
    worker = rig.start()
    rig.sink.begun(1)
    worker.kill()
    rig.sink.release(1)
    rig.start()
    rig.sink.judge()


def test_a_queue_that_is_cancelled(rig: Rig) -> None:
    """kombu's outstanding poll goes on after the cancel; what it pops is sent to the tail."""
    worker = rig.start()
    with rig.app as app:
        for _ in range(_ATTEMPTS):
            assert app.control.cancel_consumer(rig.queue, reply=True, limit=1, timeout=10)
            waiting = rig.waiting()
            caught = _freeze(rig, worker)
            rig.publish(2)
            worker.signal(signal.SIGCONT)
            wait(lambda waiting=waiting: rig.waiting() == waiting + 3, "nothing is taken")  # type: ignore[misc]
            assert app.control.add_consumer(rig.queue, reply=True, limit=1, timeout=10)
            rig.sink.judge()
            if caught:
                return
    pytest.fail("no poll was ever outstanding")
