"""What is done to a running deployment: each scenario lets something die, and what follows must not show.

A scenario leaves traffic running and processes up. The mechanisms it rests on are named; ``test_mutants`` removes them
one by one and expects the very same scenario to end in findings.
"""

import signal
from collections.abc import Callable
from pathlib import Path

from devstack.process import wait_until
from devstack.redshift.faults import arm, armed
from tests.acceptance.deployment import SOURCES, Deployment

Scenario = Callable[[Deployment], None]


def relay_dies(deployment: Deployment) -> None:
    """After reading a batch, half-way through a large one, after publishing it, after finishing it."""
    relay = f"capture_{SOURCES[0]}"
    for point in ("relay.batch", "relay.published", "relay.finished"):
        deployment.die_at(relay, point)
    deployment.arm(relay, "relay.midway:1")
    deployment.write_at_once(SOURCES[0], 6000)
    deployment.await_death(relay)


def bridge_dies(deployment: Deployment) -> None:
    """After polling, after appending to the lanes, before and after committing offsets."""
    for point in ("bridge.polled", "bridge.appended", "bridge.committing", "bridge.committed"):
        deployment.die_at("bridge_recorder", point)
    deployment.die_at("bridge_search", "bridge.appended")
    deployment.die_at("bridge_warehouse", "bridge.committing")


def search_worker_dies(deployment: Deployment) -> None:
    """Before and after the bulk request, and after the handler but before the acknowledgement."""
    for point in ("turn.claimed", "search.bulked", "turn.handled"):
        deployment.die_at("worker_search", point)


def warehouse_worker_dies(deployment: Deployment) -> None:
    """Between S3 and control database, before the acknowledgement, and at every step of a load."""
    for point in (
        "warehouse.uploaded",
        "warehouse.staged",
        "load.frozen",
        "load.copied",
        "load.merged",
        "load.committed",
    ):
        deployment.die_at("worker_warehouse", point)


def recorder_dies(deployment: Deployment) -> None:
    """A consumer of somebody's own: before and after it has written, before the acknowledgement."""
    for point in ("recorder.claimed", "recorder.written", "turn.handled"):
        deployment.die_at("worker_recorder", point)


def redis_dies(deployment: Deployment) -> None:
    """Killed with -9 and back empty: bridges refill it from the committed offsets."""
    deployment.kill_redis()
    deployment.start_redis()


def worker_is_frozen(deployment: Deployment) -> None:
    """Stopped in the middle of a turn until its lease is over and others have gone on; then it wakes and goes on, too."""
    for worker, point in (("worker_search", "turn.claimed"), ("worker_recorder", "recorder.written")):
        deployment.die_at(worker, point, "STOP")
        deployment.catch_up(worker.removeprefix("worker_"))
        deployment.supervisor.signal(worker, signal.SIGCONT)


def commit_answer_is_lost(deployment: Deployment) -> None:
    """Redshift commits a load, and the loader never hears of it."""
    state = Path(deployment.variables["SSL_CERT_FILE"]).parent
    arm(state, "drop-commit-answer")
    assert wait_until(lambda: not armed(state, "drop-commit-answer"), 30), "no load met the fault"


ALL: tuple[Scenario, ...] = (
    relay_dies, bridge_dies, search_worker_dies, warehouse_worker_dies, recorder_dies, worker_is_frozen,
    commit_answer_is_lost, redis_dies,
)  # fmt: skip
