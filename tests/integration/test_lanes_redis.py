"""Redis restarts empty under a worker, and Redis is full."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from celery import Celery

from devstack.process import wait_until
from pipeline.bridge.fitness import require_fit, store_problems
from pipeline.consumer import Outcome
from pipeline.errors import PermanentError, StoreFullError
from pipeline.kafka_security import PLAINTEXT
from pipeline.lanes.claim import Finished, TurnLimits
from pipeline.lanes.store import RedisLaneStore
from pipeline.ports import Append, News, Tenure
from tests.fakes.workers import CONSUMER, Workshop, wait

pytestmark = pytest.mark.integration


@dataclass(slots=True)
class Server:
    """A Redis of this test's own, that comes back empty."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self.process = subprocess.Popen([*command, str(self.directory)], stdout=subprocess.DEVNULL)
        assert wait_until(self._answers, 10), "redis-server does not answer"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture
def server(tmp_path: Path, redis_url: str) -> Iterator[Server]:
    assert redis_url
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = Server(tmp_path, port)
    own.start()
    yield own
    own.stop()


@pytest.fixture
def shop(server: Server, redis_url: str, redis_namespace: str, tmp_path: Path) -> Iterator[Workshop]:
    """A workshop whose lanes are in the own Redis, and its sink and switches in the other one."""
    workshop = Workshop(server.url, redis_namespace.rstrip(":"), tmp_path, sink_url=redis_url, lease="1s")
    yield workshop
    workshop.close()


@pytest.mark.parametrize("pool", ["threads", "solo", "prefork"])
def test_a_worker_outlives_a_redis_that_comes_back_empty(shop: Workshop, server: Server, pool: str) -> None:
    shop.set("delay", 0.3)
    worker = shop.start(pool=pool)
    for _ in range(2):
        before = len(shop.turns())
        shop.feed([str(n) for n in range(30)])
        wait(lambda before=before: len(shop.turns()) > before, "turns run")  # type: ignore[misc]
        server.stop()
        server.start()
        shop.refeed()
        wait(lambda: shop.complete() and shop.empty(), "what was lost is taken again")
    assert worker.alive()
    wait(lambda: worker.pid in shop.beating(), "it beats again")


def test_a_redis_that_evicts_is_refused_and_one_without_bound_is_told(
    server: Server, kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(**{"retention.bytes": "-1", "cleanup.policy": "delete"})
    unbounded = "Redis: maxmemory is not set, so bridges cannot stop before memory is full"
    assert store_problems(server.client) == ([], [unbounded])
    server.client.config_set("maxmemory", "64mb")
    assert store_problems(server.client) == ([], [])
    require_fit(kafka_bootstrap, [topic], PLAINTEXT, server.client)
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(PermanentError, match="maxmemory-policy is allkeys-lru, must be noeviction"):
        require_fit(kafka_bootstrap, [topic], PLAINTEXT, server.client)


def test_a_worker_outlives_it_with_a_plain_task_in_hand(shop: Workshop, server: Server) -> None:
    # Mutant: LaneQoS.restore_unacked is kombu's own: the worker dies of an AttributeError.
    shop.set("plain delay", 3)
    worker = shop.start("-Q", f"{CONSUMER},other")
    publisher = Celery("publisher", broker=server.url, set_as_current=False)
    publisher.conf.broker_transport_options = {
        "global_keyprefix": f"{shop.deployment}:",
        "priority_steps": [0],
    }
    publisher.send_task("plain", args=("word",), queue="other")
    publisher.close()
    wait(lambda: shop.sink.llen(f"{shop.deployment}:sink:plain") == 1, "the plain task runs")
    server.stop()
    wait(lambda: "onnection" in worker.log.read_text(), "the worker notices")
    server.start()
    shop.feed(["6"])
    shop.drained()
    assert worker.alive()


def test_a_worker_that_took_everything_asks_no_more_until_it_is_rung_for(
    shop: Workshop, server: Server
) -> None:
    # Mutants: a claim never says when to come again, or is not believed: four calls for each event.
    shop.start()
    before, began = _calls(server), time.monotonic()
    for _ in range(30):
        shop.feed(["6"])
        shop.drained()
    idle = time.monotonic() - began  # who rests looks once a second, however slow the machine is
    assert _calls(server) - before - idle < 3.5 * 30  # an append, a claim, an outcome


def test_a_full_redis_refuses_events_and_lets_lanes_drain(server: Server) -> None:
    # Mutant: ADD with allow-oom (Redis grows past its limit), STEP without (nothing drains).
    store = RedisLaneStore(server.client, "full:x")
    epoch = store.epoch()
    store.add(epoch, {0: Tenure(1, 0)}, [_append("a", 1, None), _append("b", 2, None)])
    server.client.config_set("maxmemory", "1mb")
    with pytest.raises(StoreFullError):
        store.add(epoch, {0: Tenure(1, 0)}, [_append("a", 3, 1), _append("c", 4, None)])
    assert store.lengths("abc") == {"a": 1, "b": 1, "c": 0}
    claim = store.step().claim
    assert claim is not None
    store.renew([claim.token])
    store.step([Finished(claim, [Outcome(lane.merchant, 1, "done") for lane in claim.lanes])])
    assert store.acknowledged(epoch, 0) == [News("a", 0, 1)]
    store.reset(epoch, 1, 0, "b", 1, 2)
    assert store.lengths("ab") == {"a": 0, "b": 0}
    server.client.config_set("maxmemory", "0")
    assert not store.add(epoch, {0: Tenure(1, 0)}, [_append("a", 3, 1)])[0].damaged


def _append(merchant: str, offset: int, previous: int | None) -> Append:
    return Append(merchant, 0, previous, [offset], [b"x" * 1000])


def _calls(server: Server) -> int:
    """Of scripts."""
    return int(server.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


def test_a_large_poll_is_added_in_several_calls(server: Server) -> None:
    store = RedisLaneStore(server.client, "large:x")
    appends = [Append(str(n), 0, None, [10 * n, 10 * n + 1], [b"x" * 100_000] * 2) for n in range(20)]
    answers = store.add(store.epoch(), {0: Tenure(1, 0)}, appends)
    assert [answer.enqueued for answer in answers] == [10 * n + 1 for n in range(20)]
    # Mutants: everything in one call; a call for each lane.
    assert _calls(server) == 4 + 1  # Redis did not know the script at first


def test_a_lane_that_will_be_due_before_all_others_rings(redis_url: str, redis_namespace: str) -> None:
    # Mutant: ADD rings only for lanes that are due; a resting worker then finds a lingering one up to a second late.
    namespace = f"{redis_namespace}c"
    with redis.Redis.from_url(redis_url) as client:
        store = RedisLaneStore(client, namespace, TurnLimits(linger=60_000))

        def rings(merchant: str) -> bool:
            store.add(store.epoch(), {0: Tenure(1, 0)}, [Append(merchant, 0, None, [1], [b"{}"])])
            return bool(client.delete(f"{namespace}:bell"))

        assert rings("first")
        assert not rings("later")


def test_outcomes_that_let_a_lane_linger_ring_for_it(redis_url: str, redis_namespace: str) -> None:
    # Mutant: outcomes ring only for what is due at once; who waits for the bell finds the lane up to a second late.
    namespace = f"{redis_namespace}l"
    with redis.Redis.from_url(redis_url) as client:
        store = RedisLaneStore(client, namespace, TurnLimits(linger=500, events=2))
        store.add(store.epoch(), {0: Tenure(1, 0)}, [Append("6", 0, None, [1, 2], [b"{}"] * 2)])
        claim = store.step().claim
        assert claim is not None
        store.add(store.epoch(), {0: Tenure(1, 0)}, [Append("6", 0, 2, [3], [b"{}"])])
        client.delete(f"{namespace}:bell")
        store.step([Finished(claim, [Outcome("6", 2, "done")])], claim=False)
        assert client.exists(f"{namespace}:bell")
        client.delete(f"{namespace}:bell")
        store.step(claim=False)
        assert not client.exists(f"{namespace}:bell")


# Mutant: an entry without an offset is taken for an event (the step fails, and with it every lane of the consumer).
def test_what_others_push_into_a_lane_is_kept_apart(redis_url: str, redis_namespace: str) -> None:
    namespace = f"{redis_namespace}c"
    with redis.Redis.from_url(redis_url) as client:
        store = RedisLaneStore(client, namespace)
        store.add(store.epoch(), {0: Tenure(1, 0)}, [Append("6", 0, None, (1, 2), (b"a", b"b"))])
        foreign = ("no offset", '{"body": "of a task", "headers": {}}', "{\n}", f"{'9' * 20}\n{{}}")
        for message in foreign:
            client.lpush(f"{namespace}.m.6", message)

        claim = store.step().claim
        assert claim is not None
        assert [entry.value for entry in claim.lanes[0].entries] == [b"a", b"b"]
        assert client.llen(f"{namespace}:foreign") == len(foreign)


def test_what_others_push_between_entries_waits_for_its_turn(redis_url: str, redis_namespace: str) -> None:
    # Mutant: a lane with such an element among the first is damaged: it gets no turn, and its bridge finds nothing wrong.
    namespace = f"{redis_namespace}b"
    with redis.Redis.from_url(redis_url) as client:
        store = RedisLaneStore(client, namespace)
        store.add(store.epoch(), {0: Tenure(1, 0)}, [Append("6", 0, None, (1, 2), (b"a", b"b"))])
        client.linsert(f"{namespace}.m.6", "BEFORE", "2\nb", "no offset")
        claims = [store.step().claim]
        assert claims[0] is not None
        claims.append(store.step([Finished(claims[0], [Outcome("6", 1, "done")])]).claim)
        got = [entry.offset for claim in claims if claim for entry in claim.lanes[0].entries]
        assert got == [1, 2]


# Mutant: news are kept for as long as nobody hears them.
def test_news_that_nobody_hears_do_not_fill_redis(redis_url: str, redis_namespace: str) -> None:
    namespace = f"{redis_namespace}n"
    with redis.Redis.from_url(redis_url) as client:
        store = RedisLaneStore(client, namespace)
        store.add(store.epoch(), {0: Tenure(1, 0)}, [_append("a", 1, None)])
        claim = store.step().claim
        assert claim is not None
        client.rpush(f"{namespace}:news:0", *["old"] * 100_000)
        store.step([Finished(claim, [Outcome("a", 1, "done")])], claim=False)
        assert client.llen(f"{namespace}:news:0") == 0


@pytest.mark.parametrize("count", [1, 2])
def test_what_others_push_in_front_of_a_turn_is_not_dropped_in_its_place(
    redis_url: str, redis_namespace: str, count: int
) -> None:
    # Mutants: accepted entries leave the list whatever it begins with; a single one does.
    namespace, offsets = f"{redis_namespace}f", range(1, count + 1)
    with redis.Redis.from_url(redis_url) as client:
        store = RedisLaneStore(client, namespace)
        store.add(store.epoch(), {0: Tenure(1, 0)}, [Append("6", 0, None, offsets, [b"{}"] * count)])
        claim = store.step().claim
        assert claim is not None
        client.lpush(f"{namespace}.m.6", "no offset")
        store.step([Finished(claim, [Outcome("6", count, "done")])], claim=False)
        assert client.lrange(f"{namespace}.m.6", 0, 0) == [b"no offset"]
        assert store.step().claim is not None  # what has not left the list comes again


def test_a_reason_that_no_store_takes_parks_its_lane_and_stops_nobody(
    redis_url: str, redis_namespace: str
) -> None:
    # Mutants: the reason as the handler gave it: the outcome cannot be handed in; as Redis has it: the bridge ends, again
    # and again.
    client = redis.Redis.from_url(redis_url)
    store = RedisLaneStore(client, f"{redis_namespace}r")
    store.add(store.epoch(), {0: Tenure(1, 5)}, [_append("a", 1, None)])
    claim = store.step().claim
    assert claim is not None
    park = Outcome("a", 0, "park", reason="bad \0 and \ud800")
    store.step([Finished(claim, [park])], claim=False)
    assert store.acknowledged(store.epoch(), 0) == [News("a", 5, 0, "bad ? and ?")]
    client.hset(f"{store.namespace}:lane:a", mapping={"parked": b"\xff\0", "reason": b"\xff\0"})
    [found] = store.add(store.epoch(), {0: Tenure(1, 5)}, [Append("a", 0, 1, (), (), 5)])
    assert found.parked == "\ufffd?"
    assert [lane.reason for lane in store.overview().failing] == ["\ufffd?"]
