"""The transport beside lanes: other queues, what lanes refuse, what Flower sees."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import transport as kombu_transport

from devstack.process import wait_until
from pipeline.errors import PermanentError
from pipeline.lanes import transport
from pipeline.lanes.held import HeldTurns
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from tests.fakes.workers import CONSUMER, Workshop, wait
from tests.integration.listening import Listening

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(redis_url: str, redis_namespace: str, tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(redis_url, redis_namespace.rstrip(":"), tmp_path)
    yield workshop
    workshop.close()


@pytest.fixture
def publisher(shop: Workshop) -> Iterator[Celery]:
    """An app that only sends tasks, on kombu's own transport."""
    app = Celery("publisher", broker=shop.redis_url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": f"{shop.deployment}:", "priority_steps": [0]}
    yield app
    app.close()


@pytest.fixture
def laned(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An app whose transport knows the lanes of `record`, as every process with tasks.app has it."""
    monkeypatch.setattr(kombu_transport, "TRANSPORT_ALIASES", dict(kombu_transport.TRANSPORT_ALIASES))
    monkeypatch.setattr(transport.LaneChannel, "consumers", {})
    monkeypatch.setattr(kombu_transport, "_transport_cache", {})
    store = RedisLaneStore(connect(shop.redis_url), namespace_of(shop.deployment, CONSUMER))
    transport.install({CONSUMER: HeldTurns(store, lambda: 0.5)})
    app = Celery("laned", broker=shop.redis_url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": f"{shop.deployment}:", "priority_steps": [0]}
    yield app
    app.close()


@pytest.mark.parametrize("queue", [CONSUMER, f"{CONSUMER}.m.6", f"{CONSUMER}.s.6"])
@pytest.mark.parametrize(
    "options",
    [{}, {"countdown": 1}, {"eta": datetime.now(UTC) + timedelta(minutes=1)}, {"priority": 5}],
    ids=["plain", "countdown", "eta", "priority"],
)
def test_a_lane_takes_no_tasks(laned: Celery, shop: Workshop, queue: str, options: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="takes events from the bridge only"):
        laned.send_task("plain", args=("word",), queue=queue, **options)
    assert shop.store.lengths(["6"]) == {"6": 0}
    assert shop.client.llen(f"{shop.deployment}:{CONSUMER}") == 0


def test_retry_is_refused_in_a_lane_and_works_elsewhere(laned: Celery) -> None:
    laned.send_task("plain", args=("word",), queue="other", retries=1)
    with pytest.raises(PermanentError, match=r"Task\.retry"):
        laned.send_task("plain", args=("word",), queue=f"{CONSUMER}.m.6", retries=1)


def test_one_worker_serves_lanes_and_plain_queues(shop: Workshop, publisher: Celery) -> None:
    # Mutant: plain queues polled only when no lane is ready.
    shop.set("delay", 0.05)
    shop.feed(map(str, range(30)), each=100)
    shop.start("-Q", f"{CONSUMER},other")
    for word in ("one", "two"):
        publisher.send_task("plain", args=(word,), queue="other")
    wait(lambda: len(_words(shop)) == 2, "the plain tasks are done")
    assert sum(shop.store.lengths(shop.fed).values()) > 500
    shop.set("delay", 0)
    shop.drained()
    shop.in_order()


def _words(shop: Workshop) -> list[bytes]:
    words: list[bytes] = shop.client.lrange(f"{shop.deployment}:sink:plain", 0, -1)  # type: ignore[assignment]
    return words


def test_flower_sees_turns_as_tasks_without_their_contents(shop: Workshop, publisher: Celery) -> None:
    seen: list[dict[str, Any]] = []
    shop.start("-Q", CONSUMER, "-E")
    with Listening(publisher, seen.append):
        shop.feed(["6", "17"], each=2)
        shop.drained()
        wait(lambda: any(event["type"] == "task-succeeded" for event in seen), "the turn is told")
    received = [event for event in seen if event["type"] == "task-received"]
    assert {event["name"] for event in received} == {CONSUMER}
    assert all(re.fullmatch(r"\d lanes?, \d events?: [\d, ]+", event["args"]) for event in received)
    assert {"6", "17"} <= set(re.findall(r"\d+", " ".join(event["args"] for event in received)))
    assert any(event["type"] == "task-started" for event in seen)
    assert "amount" not in str(seen)
    results = {event["result"] for event in seen if event["type"] == "task-succeeded"}
    assert all(result.endswith("done") for result in results)


def test_what_turns_tell_flower_goes_out_together(shop: Workshop) -> None:
    # Mutant: no worker_consumer: Celery's own publishes each event by itself, at more than a turn's price.
    shop.group = 1
    merchants = [str(number) for number in range(100)]
    heard = shop.client.pubsub()  # type: ignore[no-untyped-call]
    heard.psubscribe(f"{shop.deployment}:*task*")
    shop.start("-Q", CONSUMER)
    shop.feed(merchants)
    shop.drained()
    events: list[dict[str, str]] = []
    messages = 0

    def all_told() -> bool:
        nonlocal messages
        while (message := heard.get_message()) is not None:
            if message["type"] == "pmessage":
                messages += 1
                told = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
                events.extend(told if isinstance(told, list) else [told])
        return sum(one["type"] == "task-succeeded" for one in events) == len(merchants)

    wait(all_told, "every turn is told")
    heard.close()
    assert messages < len(events) / 5


def test_inspection_answers_while_lanes_are_served(shop: Workshop, publisher: Celery) -> None:
    shop.start()
    answer: dict[str, Any] = {}

    def ask() -> bool:
        answer.update(publisher.control.inspect(timeout=1).active_queues() or {})
        return bool(answer)

    assert wait_until(ask, 20)
    assert [[queue["name"] for queue in queues] for queues in answer.values()] == [[CONSUMER]]


def test_a_worker_does_not_start_on_a_kombu_that_was_not_tested(shop: Workshop, tmp_path: Path) -> None:
    # Mutant: transport.install does not ask which kombu there is.
    other = tmp_path / "other" / "kombu-5.99.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: kombu\nVersion: 5.99.0\n")
    said = shop.fails_to_start(PYTHONPATH=str(other.parent))
    assert "kombu 5.99.0 is installed, and lanes are tested with kombu 5.7 only" in said
