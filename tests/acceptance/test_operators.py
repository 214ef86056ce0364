"""What the people who run it see: status, Flower and the count, from processes that run."""

import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import psycopg
import pytest

from devstack.process import wait_until
from devstack.supervisor import Supervisor
from tests.acceptance.deployment import Deployment
from tests.acceptance.refusing import REFUSED
from tests.acceptance.running import deployed, insert_steps, start
from tests.conftest import Stack

pytestmark = pytest.mark.acceptance

CONSUMERS = ("search", "warehouse", "recorder")
PROCESSES = (
    "capture_shard0",
    *(f"bridge_{consumer}" for consumer in CONSUMERS),
    *(f"worker_{consumer}" for consumer in CONSUMERS),
    "beat",
)
BEATING = {
    "capture-shard0",
    *(f"bridge-{consumer}" for consumer in CONSUMERS),
    "worker:search",
    "worker:loads,sweeps,warehouse",
    "worker:recorder",
    "beat",
    "web",
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def running(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One source, three consumers, of which the recorder's sink refuses one merchant."""
    with deployed(stack, tmp_path_factory.mktemp("ops"), "ops") as one:
        file = one.directory / "pipeline.toml"
        recorder, refusing = "tests.acceptance.recorder:record", "tests.acceptance.refusing:consume"
        file.write_text(file.read_text().replace(recorder, refusing))
        start(one, PROCESSES)
        yield one


@pytest.fixture(scope="module")
def pages(running: Deployment) -> Iterator[dict[str, str]]:
    """The addresses of the API and of Flower, both up."""
    ports = {"web": free_port(), "flower": free_port()}
    commands = {
        "web": f"{sys.executable} -m pipeline api",
        "flower": f"{sys.executable} -m celery -A tasks.app flower --address=127.0.0.1 --port={ports['flower']}",
    }
    environment = running.environment | {"PORT": str(ports["web"]), "FLOWER_UNAUTHENTICATED_API": "1"}
    with Supervisor(commands, environment, running.directory / "logs", running.directory) as supervisor:
        supervisor.start_all()
        addresses = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        for name, path in (("web", "/healthz"), ("flower", "/api/workers")):
            assert wait_until(partial(answers, addresses[name] + path), 60), supervisor.log(name).read_text()
        yield addresses
        assert supervisor.stop(timeout=10) == [], "these did not end within 10 s of SIGTERM"


def answers(url: str) -> bool:
    """The page is there."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def status(deployment: Deployment) -> dict[str, Any]:
    """`pipeline status --json`."""
    told: dict[str, Any] = json.loads(deployment.run("status", "--json", expect=None).stdout)
    return told


def consumer(state: dict[str, Any], name: str) -> dict[str, Any]:
    """What status says about one consumer."""
    return next(one for one in state["consumers"] if one["name"] == name)


def eventually(look: Callable[[], bool], what: str) -> None:
    """Status shows it within half a minute."""
    assert wait_until(look, 30, 0.2), what


# Mutant: the overview leaves failing lanes out.
def test_a_failing_lane_is_named_and_nobody_else_waits(running: Deployment) -> None:
    insert_steps(running, "shard0", REFUSED, 2)
    insert_steps(running, "shard0", "accepted", 3)
    eventually(
        lambda: len([one for one in running.records() if one["merchant"] == "accepted"]) == 3, "others wait"
    )
    eventually(lambda: consumer(status(running), "recorder")["lanes"]["failing_count"] == 1, "no lane fails")
    state = consumer(status(running), "recorder")
    (lane,) = state["lanes"]["failing"]
    assert (lane["merchant"], lane["reason"]) == (REFUSED, "its sink has no room")
    assert lane["failures"] >= 1
    assert state["lag"] >= 2
    assert state["oldest_seconds"] > 0
    told = running.run("status", expect=1).stdout
    assert f"lane {REFUSED} of recorder is failing" in told
    assert "its sink has no room" in told


def test_lag_of_capture_and_lanes_that_wait_are_shown(running: Deployment) -> None:
    running.catch_up("search")
    supervisor = running.supervisor
    supervisor.signal("capture_shard0", signal.SIGSTOP)
    try:
        insert_steps(running, "shard0", "lagging", 5)
        (source,) = [one for one in status(running)["sources"] if one["name"] == "shard0"]
        assert source["lag"]["pending"] >= 5
        assert source["lag"]["seconds"] > 0
    finally:
        supervisor.signal("capture_shard0", signal.SIGCONT)
    running.catch_up("search")
    supervisor.signal("worker_search", signal.SIGSTOP)
    try:
        insert_steps(running, "shard0", "waiting", 4)
        eventually(lambda: consumer(status(running), "search")["lanes"]["ready"] >= 1, "no lane is ready")
        state = consumer(status(running), "search")
        assert state["lag"] >= 4
        assert state["oldest_seconds"] > 0
    finally:
        supervisor.signal("worker_search", signal.SIGCONT)
    running.catch_up("search")
    eventually(lambda: consumer(status(running), "search")["lag"] == 0, "search stays behind")


def test_every_process_beats(running: Deployment, pages: dict[str, str]) -> None:
    def beating() -> dict[str, int]:
        return {one["process"]: one["pid"] for one in status(running)["processes"]}

    eventually(lambda: beating().keys() == BEATING, f"{sorted(BEATING)} must beat, {sorted(beating())} do")
    assert beating()["bridge-search"] == running.supervisor.pid("bridge_search")
    told = running.run("status", expect=None).stdout
    for name in ("Capture", "Consumers", "Warehouse", "Processes", *BEATING):
        assert name in told


def test_flower_lists_workers_and_turns_without_their_contents(
    running: Deployment, pages: dict[str, str]
) -> None:
    def tasks() -> list[dict[str, Any]]:
        insert_steps(running, "shard0", "watched", 1)
        found = httpx.get(pages["flower"] + "/api/tasks", params={"limit": 1000}, timeout=10).json()
        return [
            task for task in found.values() if task["name"] == "search" and "watched" in (task["args"] or "")
        ]

    def workers() -> set[str]:
        found = httpx.get(pages["flower"] + "/api/workers", params={"refresh": "true"}, timeout=30).json()
        return {name.split("@")[0] for name in found}

    # Flower asks the workers and shows those that have answered within its own time.
    eventually(
        lambda: workers() == {f"{consumer}1" for consumer in CONSUMERS}, "Flower must list every worker"
    )
    eventually(lambda: bool(tasks()), "no turn of merchant watched is shown")
    turn = tasks()[0]
    assert "lane" in turn["args"] and "event" in turn["args"]
    everything = httpx.get(pages["flower"] + "/api/tasks", params={"limit": 1000}, timeout=10).text
    assert "by the application" not in everything  # the rows' note


def test_the_count_of_a_merchant_is_that_of_the_database(running: Deployment, pages: dict[str, str]) -> None:
    keys = insert_steps(running, "shard0", "counted", 7)
    with psycopg.connect(running.writer_url("shard0")) as session:
        session.execute("DELETE FROM steps WHERE id = %s", (int(keys[0]),))
        session.execute("UPDATE steps SET note = NULL WHERE id = %s", (int(keys[1]),))
    with psycopg.connect(running.url("shard0")) as session:
        row = session.execute("SELECT count(*) FROM steps WHERE merchant_id = 'counted'").fetchone()
    assert row == (6,)

    def count() -> int:
        answer = httpx.get(pages["web"] + "/counted/step/_count", timeout=10)
        assert answer.status_code == 200
        return int(answer.json()["count"])

    eventually(lambda: count() == 6, "the count differs from the database's")


def test_everything_drains_within_ten_seconds_of_sigterm(running: Deployment) -> None:
    supervisor = running.supervisor
    insert_steps(running, "shard0", "draining", 50)
    starts = {name: supervisor.restarts(name) for name in PROCESSES}
    for name in PROCESSES:
        supervisor.signal(name, signal.SIGTERM)
    assert wait_until(lambda: all(supervisor.restarts(name) > starts[name] for name in PROCESSES), 10), [
        name for name in PROCESSES if supervisor.restarts(name) == starts[name]
    ]
    for name in PROCESSES:
        assert "Traceback" not in supervisor.log(name).read_text(), name
    running.catch_up("search")
    running.catch_up("warehouse")
