"""Ordinary Celery tasks in merchants' lanes: each merchant's in the order of sending, one at a time, none lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord
from kombu import transport as kombu_transport

from pipeline.errors import PermanentError
from pipeline.lanes import transport
from pipeline.lanes.claim import TurnLimits, decode_entry
from pipeline.lanes.held_tasks import TASKS, UNKNOWN, HeldTasks
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.lanes.task_request import LaneQueues
from tests.fakes.workers import Worker, Workshop, wait
from tests.integration.listening import Listening

pytestmark = pytest.mark.integration
POOLS = ["threads", "prefork", "solo"]
MERCHANTS = ["6", "17", "m_5"]


class Yard:
    """A deployment with the queue `tasks`: an app that sends, workers, and what the tasks noted."""

    def __init__(self, shop: Workshop, app: Celery, held: HeldTasks, prefix: str) -> None:
        self.shop = shop
        self.app = app
        self.held = held
        self.prefix = prefix

    def send(self, merchant: str, *numbers: int, task: str = "job", **options: Any) -> list[str]:
        return [
            self.app.send_task(task, args=(merchant, n), queue=f"tasks.m.{merchant}", **options).id
            for n in numbers
        ]

    def start(self, *options: str, pool: str = "threads", concurrency: int = 2, **variables: str) -> Worker:
        return self.shop.start("-Q", TASKS, *options, pool=pool, concurrency=concurrency, **variables)

    def switch(self, name: str, merchant: str, number: int) -> None:
        self.shop.client.sadd(f"{self.prefix}{name}", f"{merchant} {number}")

    def unswitch(self, name: str) -> None:
        self.shop.client.delete(f"{self.prefix}{name}")

    def log(self, merchant: str) -> list[str]:
        """What this merchant's tasks noted, in order."""
        lines: list[bytes] = self.shop.client.lrange(f"{self.prefix}log", 0, -1)  # type: ignore[assignment]
        split = [line.decode().split() for line in lines]
        return [f"{what} {number}" for what, owner, number in split if owner == merchant]

    def ended(self, merchant: str) -> list[int]:
        return [int(line.split()[1]) for line in self.log(merchant) if line.startswith("end")]

    def wait_for(self, merchant: str, line: str) -> None:
        wait(lambda: line in self.log(merchant), f"{line} of {merchant}")

    def empty(self) -> bool:
        return not any(self.held.store.lengths(MERCHANTS).values())

    def drained(self) -> None:
        wait(lambda: self.empty() and self.held.store.overview().claimed == 0, "every lane is empty")


@pytest.fixture
def yard(
    redis_url: str, redis_namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Yard]:
    prefix = f"{redis_namespace}jobs:"
    shop = Workshop(
        redis_url, redis_namespace.rstrip(":"), tmp_path, lease="1s", include=["tests.fakes.jobs"]
    )
    shop.environment = {"JOBS_URL": redis_url, "JOBS_PREFIX": prefix}
    monkeypatch.setattr(kombu_transport, "TRANSPORT_ALIASES", dict(kombu_transport.TRANSPORT_ALIASES))
    monkeypatch.setattr(transport.LaneChannel, "consumers", {})
    monkeypatch.setattr(kombu_transport, "_transport_cache", {})
    store = RedisLaneStore(connect(redis_url), namespace_of(shop.deployment, TASKS), TurnLimits(events=1))
    held = HeldTasks(store, lambda: 0.5)
    transport.install({TASKS: held})
    app = Celery("sender", broker=redis_url, set_as_current=False)
    app.amqp.queues_cls = LaneQueues
    app.conf.broker_transport_options = {"global_keyprefix": f"{shop.deployment}:", "priority_steps": [0]}
    yield Yard(shop, app, held, prefix)
    app.close()
    shop.close()


def whole(*numbers: int) -> list[str]:
    return [f"{what} {number}" for number in numbers for what in ("begin", "end")]


@pytest.mark.parametrize("pool", POOLS)
def test_a_merchants_tasks_run_in_order_one_at_a_time(yard: Yard, pool: str) -> None:
    # Mutant: claims of several entries, or of a lane that is claimed.
    for n in range(8):
        for merchant in MERCHANTS:
            yard.send(merchant, n)
    yard.start(pool=pool)
    yard.start(pool=pool)
    yard.drained()
    for merchant in MERCHANTS:
        assert yard.log(merchant) == whole(*range(8))


def test_merchants_do_not_wait_for_each_other(yard: Yard) -> None:
    yard.switch("held", "6", 1)
    yard.send("6", 1, 2)
    yard.start()
    yard.wait_for("6", "begin 1")
    yard.send("17", 1, 2, 3)
    yard.wait_for("17", "end 3")
    assert yard.log("6") == ["begin 1"]
    yard.unswitch("held")
    yard.drained()


@pytest.mark.parametrize("pool", POOLS)
def test_a_killed_worker_loses_and_reorders_nothing(yard: Yard, pool: str) -> None:
    # Mutant: the task leaves its lane when it begins.
    yard.switch("held", "6", 2)
    yard.send("6", 1, 2, 3)
    worker = yard.start(pool=pool)
    yard.wait_for("6", "begin 2")
    worker.kill()
    yard.unswitch("held")
    yard.start(pool=pool)
    yard.drained()
    assert yard.log("6") == ["begin 1", "end 1", "begin 2", *whole(2, 3)]


def test_a_killed_pool_process_does_not_lose_its_task(yard: Yard) -> None:
    # Mutant: reject_on_worker_lost left as it is: Celery acknowledges what died.
    yard.switch("deadly", "6", 1)
    yard.send("6", 1, 2)
    worker = yard.start(pool="prefork")
    yard.drained()
    assert yard.log("6") == ["begin 1", *whole(1, 2)]
    assert worker.alive()


def test_a_task_that_is_acknowledged_early_elsewhere_is_not_in_a_lane(yard: Yard) -> None:
    # Mutant: lane messages go to Celery's strategy as it is: the second begins while the first runs.
    yard.switch("held", "6", 1)
    yard.send("6", 1, 2, task="early")
    yard.start()
    yard.wait_for("6", "begin 1")
    yard.send("17", 1)
    yard.wait_for("17", "end 1")
    assert yard.log("6") == ["begin 1"]
    yard.unswitch("held")
    yard.drained()
    assert yard.log("6") == whole(1, 2)


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_fails_is_done_and_one_that_asks_comes_again_first(yard: Yard, pool: str) -> None:
    yard.switch("failing", "6", 1)
    yard.switch("again", "6", 2)
    yard.send("6", 1, 2, 3)
    yard.start(pool=pool)
    yard.drained()
    assert yard.log("6") == ["begin 1", "begin 2", *whole(2, 3)]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_task_retry_is_refused_and_the_task_comes_again_first(yard: Yard, pool: str) -> None:
    # Mutant: the refusal's Reject is taken as Celery takes it: the task is gone.
    yard.switch("held", "6", 1)
    yard.send("6", 1, 2, task="retrying")
    worker = yard.start(pool=pool)
    wait(lambda: yard.held.store.overview().failing_count == 1, "it is told as failing")
    (failing,) = yard.held.store.overview().failing
    assert failing.reason == "Task.retry sends to the end of tasks.m.6, behind what came later"
    yard.unswitch("held")
    yard.drained()
    assert yard.log("6") == ["retry 1", "retry 1", *whole(1), "retry 2", "retry 2", *whole(2)]
    assert "celery.exceptions.Reject(reason, requeue=True)" in worker.log.read_text()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"countdown": 1}, "countdown and eta would hold a task of tasks.m.6 back"),
        ({"eta": datetime.now(UTC) + timedelta(minutes=1)}, "countdown and eta"),
        ({"priority": 5}, "priority would let a task of tasks.m.6 overtake"),
        ({"retries": 1}, r"Task\.retry sends to the end of tasks.m.6.*raise celery\.exceptions\.Reject"),
    ],
    ids=["countdown", "eta", "priority", "retry"],
)
def test_what_would_leave_the_order_is_refused(yard: Yard, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(PermanentError, match=problem):
        yard.send("6", 1, **options)
    assert yard.empty()


@pytest.mark.parametrize("queue", ["tasks", "tasks.m.", "tasks.m.a b", "tasks.s.6", "tasks.m.6.7"])
def test_a_lane_is_named_after_a_merchant(yard: Yard, queue: str) -> None:
    with pytest.raises(PermanentError, match="is no merchant's lane"):
        yard.app.send_task("job", args=("6", 1), queue=queue)


def test_sending_leaves_nothing_behind_but_the_lane(yard: Yard) -> None:
    # Mutants: LaneQueues, _queue_bind as they are: an entry and two keys for each merchant, for ever.
    before = len(yard.app.amqp.queues)
    yard.send("6", 1)
    other = Celery("other", broker=yard.shop.redis_url, set_as_current=False)
    other.conf.broker_transport_options = yard.app.conf.broker_transport_options
    other.send_task("job", args=("17", 1), queue="tasks.m.17")
    other.close()
    assert len(yard.app.amqp.queues) == before
    prefix = f"{yard.shop.deployment}:"
    keys = {key.decode().removeprefix(prefix) for key in yard.shop.client.scan_iter(f"{prefix}*")}
    assert keys == {"tasks.m.6", "tasks.m.17", "tasks:lane:6", "tasks:lane:17", "tasks:ready", "tasks:bell"}
    yard.start()
    yard.drained()
    assert yard.log("6") == yard.log("17") == whole(1)
    left = {key.decode().removeprefix(prefix) for key in yard.shop.client.scan_iter(f"{prefix}tasks*")}
    assert left <= {"tasks:lane:6", "tasks:lane:17", "tasks:token", "tasks:bell"}


def test_a_message_that_is_sent_again_at_once_is_there_once(yard: Yard) -> None:
    # Mutant: `sent` not compared: a call that got no answer and is repeated doubles the task.
    (first,) = yard.send("6", 1)
    yard.send("6", 1, task_id=first)
    assert yard.held.store.lengths(["6"]) == {"6": 1}


def test_a_lane_whose_state_is_gone_goes_on_with_the_next_task(yard: Yard) -> None:
    # Mutant: numbers begin anew, and two entries of a list have the same one.
    yard.send("6", 1, 2)
    yard.shop.client.delete(f"{yard.shop.deployment}:tasks:lane:6", f"{yard.shop.deployment}:tasks:ready")
    yard.send("6", 3)
    entries: list[bytes] = yard.shop.client.lrange(f"{yard.shop.deployment}:tasks.m.6", 0, -1)  # type: ignore[assignment]
    assert [decode_entry(entry).offset for entry in entries] == [1, 2, 3]
    yard.start()
    yard.drained()
    assert yard.log("6") == whole(1, 2, 3)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_sigterm_lets_the_running_one_end_and_begins_no_other(yard: Yard, pool: str) -> None:
    for merchant in MERCHANTS:
        yard.switch("held", merchant, 1)
        yard.send(merchant, 1, 2)
    worker = yard.start("--prefetch-multiplier", "3", pool=pool, concurrency=1)
    wait(lambda: yard.held.store.overview().claimed == 3, "one runs, two wait in the worker")
    os.kill(worker.pid, signal.SIGTERM)
    yard.start(pool=pool)
    yard.unswitch("held")
    assert worker.process.wait(20) == 0
    yard.drained()
    for merchant in MERCHANTS:
        assert yard.log(merchant) == whole(1, 2)


def test_what_a_pool_might_still_begin_goes_back_when_it_has_ended(yard: Yard) -> None:
    # Mutant: it goes back when claiming ends, and another worker begins it beside the pool.
    yard.send("6", 1)
    claim = yard.held.arrived(yard.held.store.step())
    assert claim is not None
    yard.held.leave()
    assert yard.held.store.step().claim is None
    yard.held.end()
    again = yard.held.store.step().claim
    assert again is not None
    assert (again.lanes[0].failures, again.lanes[0].entries) == (0, claim.lanes[0].entries)


def test_an_unknown_task_waits_for_a_worker_that_knows_it(yard: Yard) -> None:
    # Mutant: rejected without requeue means gone.
    yard.send("6", 1, task="not yet deployed")
    yard.send("6", 2)
    yard.start()
    wait(lambda: yard.held.store.overview().failing_count == 1, "it is told as failing")
    assert [lane.reason for lane in yard.held.store.overview().failing] == [UNKNOWN]
    assert yard.log("6") == []


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_revoked_task_is_passed_over(yard: Yard, pool: str) -> None:
    yard.switch("held", "6", 1)
    _, second, _ = yard.send("6", 1, 2, 3)
    yard.start(pool=pool)
    yard.wait_for("6", "begin 1")
    yard.app.control.revoke(second, reply=True, timeout=10, limit=1)
    yard.unswitch("held")
    yard.drained()
    assert yard.log("6") == whole(1, 3)


@pytest.mark.parametrize("pool", POOLS)
def test_an_expired_task_is_passed_over(yard: Yard, pool: str) -> None:
    yard.send("6", 1, expires=datetime.now(UTC) - timedelta(seconds=1))
    yard.send("6", 2)
    yard.start(pool=pool)
    yard.drained()
    assert yard.log("6") == whole(2)


@pytest.mark.parametrize("pool", POOLS)
def test_a_rate_limited_task_keeps_its_place(yard: Yard, pool: str) -> None:
    yard.send("6", 1, 2, 3, task="limited")
    yard.start(pool=pool)
    yard.drained()
    assert yard.log("6") == whole(1, 2, 3)


def test_a_task_over_its_time_limit_is_ended_and_done(yard: Yard) -> None:
    yard.switch("held", "6", 1)
    yard.send("6", 1, 2, task="timed")
    worker = yard.start(pool="prefork")
    yard.drained()
    assert yard.log("6") == ["begin 1", *whole(2)]
    assert worker.alive()


@pytest.mark.parametrize("pool", POOLS)
def test_a_chord_in_one_lane_runs_one_at_a_time_and_then_its_end(yard: Yard, pool: str) -> None:
    backend = yard.shop.redis_url
    with Celery("chords", broker=backend, backend=backend, set_as_current=False) as app:
        app.amqp.queues_cls = LaneQueues
        app.conf.broker_transport_options = yard.app.conf.broker_transport_options
        header = [app.signature("part", args=("6", n), queue="tasks.m.6") for n in (1, 2, 3)]
        end = app.signature("sum", args=("6",), queue="tasks.m.6")
        result = chord(header, app=app)(end)
        yard.start(pool=pool, CELERY_RESULT_BACKEND=backend)
        assert result.get(timeout=30) == 6
        yard.drained()
        assert yard.log("6") == whole(1, 2, 3, 6)
        result.forget()


def test_a_chain_goes_on_in_the_lanes_that_its_parts_name(yard: Yard) -> None:
    parts = [
        yard.app.signature("job", args=(merchant, n), queue=f"tasks.m.{merchant}", immutable=True)
        for n, merchant in enumerate(["6", "17", "6"], 1)
    ]
    chain(*parts, app=yard.app).apply_async()
    yard.start()
    yard.wait_for("6", "end 3")
    assert (yard.log("6"), yard.log("17")) == (whole(1, 3), whole(2))


def test_flower_sees_each_task_and_remote_control_answers(yard: Yard) -> None:
    seen: list[dict[str, Any]] = []
    yard.switch("held", "6", 1)
    with Listening(yard.app, seen.append):
        yard.start("-E")
        yard.send("6", 1)
        yard.wait_for("6", "begin 1")
        active = yard.app.control.inspect(timeout=2).active()
        yard.unswitch("held")
        yard.drained()
        wait(lambda: any(event["type"] == "task-succeeded" for event in seen), "its end is told")
    assert [[one["name"] for one in tasks] for tasks in active.values()] == [["job"]]
    assert {event["name"] for event in seen if event["type"] == "task-received"} == {"job"}
