"""Mechanisms that can be taken away, and for each a scenario that cannot end well without it.

A scenario brings a deployment into exactly the situation that the mechanism is for and returns what it finds wrong:
nothing when the mechanism is there. It waits until its last event has arrived, so a finding is never mere slowness, and
a process that does not run fails the wait, not the mechanism. Each has a merchant of its own: they may follow each other.
"""

import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from devstack.process import wait_until
from pipeline.capture.publisher import OUTSTANDING
from tests.acceptance import ledger
from tests.acceptance.deployment import REPO, SOURCES, Deployment
from tests.acceptance.order import violations

SOURCE = SOURCES[0]
CAPTURE = f"capture_{SOURCE}"
LONG = OUTSTANDING + 1000  # events of a batch that the relay cannot send in one go
Scenario = Callable[[Deployment], list[str]]


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `old`, which must be in `file` exactly once, by `new`."""

    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Change the file below `root`."""
        text = (root / self.file).read_text()
        found = text.count(self.old)
        assert found == 1, (
            f"{self.file} has {found} times, not once: {self.old!r}; bring the mutant up to date"
        )
        (root / self.file).write_text(text.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Mutant:
    """The product without one mechanism; `shows` is part of a finding that the scenario then must make."""

    name: str
    edits: tuple[Edit, ...]
    scenario: Scenario
    shows: str

    def copy(self, directory: Path) -> Path:
        """The changed product in `directory`."""
        return copy_of(self.edits, directory)


def copy_of(edits: Sequence[Edit], directory: Path) -> Path:
    """The product in `directory`, with these edits."""
    for folder in ("pipeline", "tasks"):
        shutil.copytree(REPO / folder, directory / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in edits:
        edit.apply(directory)
    return directory


# Traffic


def insert_steps(deployment: Deployment, merchant: str, first: int, last: int) -> None:
    """Steps `first` to `last` of a merchant, in one transaction."""
    with psycopg.connect(deployment.writer_url(SOURCE)) as session:
        session.execute(
            "INSERT INTO steps (merchant_id, step, amount)"
            " SELECT %s, n, 1 FROM generate_series(%s::bigint, %s) n ORDER BY n",
            (merchant, first, last),
        )


def await_step(deployment: Deployment, merchant: str, step: int) -> None:
    """Wait until the recorder has written this step."""
    wanted = (merchant, step)
    arrived = wait_until(
        lambda: wanted in {(one["merchant"], one["step"]) for one in deployment.records()}, 60, 0.2
    )
    assert arrived, f"step {step} of {merchant} does not arrive"


def await_lane(deployment: Deployment, merchant: str, events: int) -> None:
    """Wait until the merchant's lane of the recorder holds so many events."""
    with redis.Redis(port=deployment.redis_port) as client:
        list_ = f"{deployment.name}:recorder.m.{merchant}"
        assert wait_until(lambda: client.llen(list_) == events, 60), f"{list_} does not get {events} events"


def recorded(deployment: Deployment, merchant: str, last: int) -> list[str]:
    """What is wrong with the recording of a merchant, once its last step is there."""
    await_step(deployment, merchant, last)
    return violations(deployment.records(), {merchant: 0}, {merchant: last})


# Scenarios


def relay_dies_midway(deployment: Deployment) -> list[str]:
    """The relay dies while Kafka has one part of a batch and not the other."""
    deployment.start("bridge_recorder", "worker_recorder")
    deployment.arm(CAPTURE, "relay.midway:1")
    insert_steps(deployment, "relayed", 1, LONG)
    deployment.await_death(CAPTURE)
    insert_steps(deployment, "relayed", LONG + 1, LONG + 1)
    return recorded(deployment, "relayed", LONG + 1)


def redis_dies_before_the_sink(deployment: Deployment) -> list[str]:
    """Redis is lost with events that are in lanes, that no worker has taken, and whose bridge has committed on leaving."""
    deployment.start(CAPTURE, "bridge_recorder", "worker_recorder")
    insert_steps(deployment, "refilled", 1, 1)
    await_step(deployment, "refilled", 1)
    deployment.catch_up("recorder")
    _signal_recorders(deployment, signal.SIGSTOP)
    insert_steps(deployment, "refilled", 2, 20)
    await_lane(deployment, "refilled", 19)
    deployment.restart("bridge_recorder")
    deployment.kill_redis()
    deployment.start_redis()
    _signal_recorders(deployment, signal.SIGCONT)
    insert_steps(deployment, "refilled", 21, 21)
    return recorded(deployment, "refilled", 21)


def worker_wakes_after_its_lease(deployment: Deployment) -> list[str]:
    """A worker stops between sink and acknowledgement; others finish its turn; it wakes before a lane of new events."""
    deployment.start(CAPTURE, "bridge_recorder", "worker_recorder_2")
    insert_steps(deployment, "woken", 1, 1)
    await_step(deployment, "woken", 1)
    deployment.catch_up("recorder")
    deployment.supervisor.signal("worker_recorder_2", signal.SIGSTOP)
    deployment.arm("worker_recorder", "recorder.written:1:STOP")
    insert_steps(deployment, "woken", 2, 11)
    deployment.await_stop("worker_recorder")
    deployment.supervisor.signal("worker_recorder_2", signal.SIGCONT)
    deployment.catch_up("recorder")
    deployment.supervisor.signal("worker_recorder_2", signal.SIGSTOP)
    # More than it could claim on its way out: what a wrong acknowledgement takes away is then in nobody's hands.
    insert_steps(deployment, "woken", 12, 600)
    await_lane(deployment, "woken", 589)
    deployment.restart("worker_recorder")
    deployment.supervisor.signal("worker_recorder_2", signal.SIGCONT)
    return recorded(deployment, "woken", 600)


def late_bulk_of_an_old_event(deployment: Deployment) -> list[str]:
    """A search worker stops before its bulk; others write it and a newer one; it wakes and sends the old one."""
    deployment.start(
        CAPTURE, "bridge_search", "bridge_warehouse", "worker_search_2", "worker_warehouse", "beat"
    )
    insert_steps(deployment, "searched", 1, 1)
    deployment.catch_up("search")
    deployment.supervisor.signal("worker_search_2", signal.SIGSTOP)
    deployment.arm("worker_search", "turn.claimed:1:STOP,search.bulked:1:STOP")
    _change_step(deployment, "searched", 2)
    deployment.await_stop("worker_search")
    deployment.supervisor.signal("worker_search_2", signal.SIGCONT)
    _change_step(deployment, "searched", 3)
    assert verified(deployment) == []  # the index has it
    deployment.supervisor.signal("worker_search", signal.SIGCONT)
    deployment.await_stop("worker_search")
    deployment.supervisor.signal("worker_search", signal.SIGCONT)
    return verified(deployment)


def loader_dies_after_its_commit(deployment: Deployment) -> list[str]:
    """Redshift has committed a load, and the loader dies before it has noted that anywhere else."""
    deployment.start(CAPTURE, "bridge_warehouse", "beat")
    deployment.arm("worker_warehouse", "load.committed:1")
    insert_steps(deployment, "loaded", 1, 10)
    deployment.await_death("worker_warehouse")
    with psycopg.connect(deployment.url("control"), autocommit=True) as session:
        query = "SELECT count(*) > 0 AND bool_and(status = 'loaded') FROM loads"
        assert wait_until(lambda: session.execute(query).fetchone() == (True,), 60), "the load does not end"
    return ledger.doubled(deployment)


def rows_change(deployment: Deployment) -> list[str]:
    """A row is inserted, updated and deleted."""
    deployment.start(CAPTURE, "bridge_recorder", "worker_recorder")
    insert_steps(deployment, "imaged", 1, 1)
    _change_step(deployment, "imaged", 2)
    with psycopg.connect(deployment.writer_url(SOURCE)) as session:
        session.execute("DELETE FROM steps WHERE merchant_id = 'imaged'")
    insert_steps(deployment, "imaged", 3, 3)
    return recorded(deployment, "imaged", 3)


def verified(deployment: Deployment) -> list[str]:
    """What ``pipeline verify`` finds; it must have compared."""
    report = deployment.verify()
    assert "comparisons" in report, report
    found = [
        f"{one['type']}: {finding} in {one['sink']}: {merchant} {key}"
        for one in report["comparisons"]
        for finding, merchant, key in one["differences"]
    ]
    assert report["ok"] == (not found), report
    return found


def _change_step(deployment: Deployment, merchant: str, step: int) -> None:
    with psycopg.connect(deployment.writer_url(SOURCE)) as session:
        session.execute("UPDATE steps SET step = %s WHERE merchant_id = %s", (step, merchant))


def _signal_recorders(deployment: Deployment, sent: signal.Signals) -> None:
    """Whatever worker of the recorder runs here."""
    for name in ("worker_recorder", "worker_recorder_2"):
        if deployment.supervisor.pid(name) is not None:
            deployment.supervisor.signal(name, sent)


# The head of the lane is compared as well, and is enough to keep what an old holder has not seen: both go.
ACKNOWLEDGED_BY_ANYBODY = (
    Edit("pipeline/lanes/lua/step.lua", "if fields[1] ~= token then", "if not fields[1] then"),
    Edit("pipeline/lanes/lua/step.lua", "if head and offset_of(head) ~= first then\n", "if false then\n"),
    Edit("pipeline/lanes/lua/step.lua", "if head and offset_of(head) ~= first then return false end", ""),
)

MUTANTS = (
    Mutant(
        "finish before acknowledged",
        (
            Edit(
                "pipeline/capture/relay.py",
                "        try:\n            published = self._publish(batch)\n",
                "        finished = self._queue.finish(batch)\n        try:\n            published = self._publish(batch)\n",
            ),
            Edit(
                "pipeline/capture/relay.py",
                "        if not self._queue.finish(batch):\n",
                "        if not finished:\n",
            ),
        ),
        relay_dies_midway,
        f"go on with {LONG + 1} where",
    ),
    Mutant(
        "commit before sink",
        (
            Edit(
                "pipeline/bridge/dispatcher.py",
                "return self._source.position(partition.number) if smallest is None else smallest",
                "return self._source.position(partition.number)",
            ),
        ),
        redis_dies_before_the_sink,
        "go on with 21 where 2 was next",
    ),
    Mutant(
        "acknowledged by anybody",
        ACKNOWLEDGED_BY_ANYBODY,
        worker_wakes_after_its_lease,
        "merchant woken: steps go on with",
    ),
    Mutant(
        "no version",
        (
            Edit("pipeline/search/documents.py", ',"version":%d,"version_type":"external"}}', "}}"),
            Edit(
                "pipeline/search/documents.py",
                "        lane.merchant.encode(),\n        change.version,\n        lane.merchant.encode(),\n",
                "        lane.merchant.encode(),\n        lane.merchant.encode(),\n",
            ),
        ),
        late_bulk_of_an_old_event,
        "step: different in search: searched",
    ),
    Mutant(
        "ledger not asked",
        (
            Edit(
                "pipeline/warehouse/transaction.py",
                "entry = ledger.find(warehouse, target.schema, table, batch.id)",
                "entry = None",
            ),
        ),
        loader_dies_after_its_commit,
        "2 times",
    ),
    Mutant(
        "no old row",
        (
            Edit(
                "pipeline/capture/triggers.py",
                "      {new_image}\n      {old_image}\n",
                "      {new_image}\n",
            ),
        ),
        rows_change,
        "has an old image that never was",
    ),
)
