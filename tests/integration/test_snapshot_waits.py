"""What a snapshot waits for, and says so: a transaction, a lock, a person, the consumers; and another generation."""

from collections.abc import Callable, Iterator

import pytest

from devstack.process import wait_until
from pipeline.capture import rows, snapshot
from pipeline.capture.marks import take_mark, valid_mark
from pipeline.control import snapshots
from pipeline.domain.version import EVENT, pack
from pipeline.telemetry import ProcessState
from tests.integration.captured import NAME, Captured
from tests.integration.relaying import Stage, staged

pytestmark = pytest.mark.integration


@pytest.fixture
def stage(captured: Captured, kafka_bootstrap: str, kafka_topic: Callable[..., str]) -> Iterator[Stage]:
    captured.run(
        "create table t (id bigint primary key, merchant_id integer, v integer)",
        "insert into t select g, 6, 0 from generate_series(1, 10) g",
        "create table other (id integer)",
    )
    captured.install(t="merchant_id")
    with staged(captured, kafka_bootstrap, kafka_topic(1)) as made:
        settled(made)
        yield made


def settled(stage: Stage) -> None:
    """A mark that counts: other databases' transactions share the server's numbers and may delay it."""
    mark = take_mark(stage.queue.connection)
    assert wait_until(lambda: valid_mark(stage.queue.connection) == mark, 20, pause=0.01)


def waits(stage: Stage, request: int, *words: str) -> None:
    """Relay until the request says that it waits, in these words, to the control database and in the metrics."""
    stage.run_until(lambda: all(word in stage.state(request).detail for word in words))
    assert all(word in stage.metrics.snapshot_waits_for for word in words)


def test_a_repair_waits_for_older_writers_and_names_them(stage: Stage) -> None:
    # Mutant: the newest earlier mark taken for a repair as well; what went astray after that mark stays astray.
    stage.carry_out(snapshots.request(stage.database, NAME))
    first = {row.version for row in stage.rows()}
    with stage.captured.writer() as writer, writer.transaction():
        writer.execute("insert into other values (1)")
        request = snapshots.request(stage.database, NAME)
        waits(stage, request, str(writer.info.backend_pid))
        assert len(stage.rows()) == 10
        stage.captured.run("update t set v = 1 where id = 1")
        stage.run_until(lambda: any(event.op == "u" for event in stage.changes()))
    stage.carry_out(request)
    assert len(stage.rows()) == 20
    assert min({row.version for row in stage.rows()} - first) > max(first)


def test_the_first_snapshot_of_a_table_takes_the_newest_valid_mark_at_once(stage: Stage) -> None:
    # Mutant: it waits as a repair does, for hours beside a long transaction.
    with stage.captured.writer() as writer, writer.transaction():
        writer.execute("update t set v = 1 where id = 1")
        stage.carry_out(snapshots.request(stage.database, NAME))
        assert {row.key["id"]: row.row()["v"] for row in stage.rows()}[1] == 0
    stage.run_until(lambda: any(event.op == "u" for event in stage.changes()))
    (update,) = [event for event in stage.changes() if event.op == "u"]
    (shown,) = [row for row in stage.rows() if row.key["id"] == 1]
    assert shown.version < update.version


def test_the_first_snapshot_of_a_table_that_something_is_noted_of_is_a_repair(stage: Stage) -> None:
    # Mutant: the newest earlier mark serves; what was noted after it would be taken for answered.
    with stage.captured.writer() as writer, writer.transaction():
        writer.execute("insert into other values (1)")
        stage.queue.connection.execute(
            "insert into cdc.notices (table_name, reason) values ('public.t', 'x')"
        )
        request = snapshots.request(stage.database, NAME)
        waits(stage, request, str(writer.info.backend_pid))
        assert stage.rows() == []
    stage.carry_out(request)


def test_the_sweep_is_below_every_chunk(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Mutant: the sweep at the version of the last chunk, which takes the rows of those before away.
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    request = snapshots.request(stage.database, NAME)
    stage.run_until(lambda: stage.metrics.snapshot_rows >= 2)
    settled(stage)
    stage.carry_out(request)
    assert len({row.ev for row in stage.rows()}) > 1
    (sweep,) = {sweep for _, _, sweep in stage.sweeps()}
    assert all(row.version > sweep.version for row in stage.rows())
    assert sweep.version == min(pack(1, row.ev, EVENT) for row in stage.rows())


def test_a_table_locked_against_readers_holds_up_nobody_else(stage: Stage) -> None:
    # Mutant: without a bound on waiting for the lock all changes wait with the snapshot.
    with stage.captured.writer() as writer, writer.transaction():
        writer.execute("set local idle_in_transaction_session_timeout = '20s'")
        writer.execute("lock table t in access exclusive mode")
        request = snapshots.request(stage.database, NAME)
        waits(stage, request, f"process {writer.info.backend_pid} to let go of public.t")
    stage.carry_out(request)


def test_a_paused_snapshot_publishes_nothing_and_goes_on_from_where_it_was(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutant: a pause that is not looked at between chunks.
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    monkeypatch.setattr(snapshot, "_LOOK_EVERY", 0.0)
    request = snapshots.request(stage.database, NAME)
    stage.run_until(lambda: stage.metrics.snapshot_rows >= 2)
    assert snapshots.pause(stage.database, NAME, paused=True) == [request]
    later = snapshots.request(stage.database, NAME, table="public.t")
    waits(stage, request, "paused")
    published = len(stage.rows())
    assert 2 <= published < 10
    stage.captured.run("update t set v = 1 where id = 1")
    stage.run_until(lambda: any(event.op == "u" for event in stage.changes()))
    assert len(stage.rows()) == published
    assert stage.state(later).paused
    assert snapshots.pause(stage.database, NAME, paused=False) == [request, later]
    stage.carry_out(request)
    assert sorted(int(str(row.key["id"])) for row in stage.rows()[:10]) == list(range(1, 11))


def test_a_snapshot_waits_for_the_slowest_consumer(stage: Stage) -> None:
    # Mutant: consumers that are away for a week then have all of it in front of them, and Kafka deletes what is too old.
    slow = {"snapshot_lag": 200_001}
    stage.processes[:] = [ProcessState("bridge-search", "host", 1, 0.0, 0.0, dict(slow))]
    request = snapshots.request(stage.database, NAME)
    assert wait_until(lambda: stage.work._backlog.hindrance() != "", 10, pause=0.01)
    waits(stage, request, "consumer search has 200,001 of its records")
    assert stage.rows() == []
    stage.processes.clear()
    stage.carry_out(request)


def test_a_generation_raised_between_reading_and_publishing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutants: rows published under the former generation behind the raise, where the sweep of the new one has to find
    # them; a position kept across generations, so that some rows never come under the new one.
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    request = snapshots.request(stage.database, NAME)
    stage.run_until(lambda: stage.metrics.snapshot_rows >= 4)
    before = len(stage.rows())
    stage.queue.connection.execute("update cdc.identity set generation = 2")
    stage.captured.run("update t set v = 1 where id = 10")
    stage.carry_out(request)
    later = stage.rows()[before:]
    assert {row.gen for row in later} == {2}
    assert sorted(int(str(row.key["id"])) for row in later) == list(range(1, 11))
    (sweep,) = {sweep for _, _, sweep in stage.sweeps()}
    assert pack(2, 0) < sweep.version <= min(row.version for row in later)
    assert stage.state(request).generation == 2


def test_one_overtaken_by_a_generation_gives_way_to_a_request_that_covers_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutant: both are carried out, the same rows twice.
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    request = snapshots.request(stage.database, NAME, table="public.t")
    stage.run_until(lambda: stage.metrics.snapshot_rows >= 2)
    covering = snapshots.request(stage.database, NAME)
    stage.queue.connection.execute("update cdc.identity set generation = 2")
    stage.run_until(lambda: stage.done(request))
    assert stage.state(request).status == "failed"
    assert f"superseded by snapshot {covering}" in stage.state(request).detail
    stage.carry_out(covering)


@pytest.mark.parametrize(
    ("asked", "other", "covers"),
    [
        ({}, {}, True),
        ({}, {"table": "public.t"}, False),
        ({"table": "public.t"}, {}, True),
        ({"table": "public.t"}, {"table": "public.u"}, False),
        ({"merchant": "6"}, {}, True),
        ({"merchant": "6"}, {"merchant": "7"}, False),
        ({}, {"merchant": "6"}, False),
        ({"merchant": "6", "replaces": "mall"}, {}, False),
        ({"merchant": "6", "replaces": "mall"}, {"merchant": "6", "replaces": "mall"}, True),
    ],
)
def test_which_request_covers_which(
    captured: Captured, asked: dict[str, str], other: dict[str, str], covers: bool
) -> None:
    first = snapshots.request(captured.database, NAME, **asked)
    requested = snapshots.load(captured.database, first)
    assert requested is not None
    assert snapshots.begin(captured.database, requested, 1, {})
    second = snapshots.request(captured.database, NAME, **other)
    loaded = snapshots.load(captured.database, first)
    assert loaded is not None
    assert snapshots.covering(captured.database, loaded) == (second if covers else None)
