"""The snapshot in its process: killed at any point it goes on where it was, and ends with the same rows and sweeps."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.capture.queue import notices
from pipeline.capture.session import session
from pipeline.control import snapshots
from pipeline.domain.event import Event, decode
from pipeline.domain.sweep import Sweep, decode_sweep
from pipeline.domain.version import EVENT, pack
from tests.conftest import SourceDatabase, unique
from tests.integration.capture_process import Site, site, topics
from tests.integration.captured import NAME, Captured
from tests.integration.kafka_topic import read_topic

pytestmark = pytest.mark.integration
Read = Callable[[], tuple[list[Event], list[tuple[str, int, Sweep]]]]
ROWS = 12_000


@pytest.fixture
def topic(kafka_bootstrap: str, kafka_admin: KafkaAdminClient) -> Iterator[str]:
    with topics(kafka_bootstrap, kafka_admin, unique("topic")) as name:
        yield name


@pytest.fixture
def running(
    captured: Captured,
    capture_databases: tuple[SourceDatabase, str],
    topic: str,
    variables: Mapping[str, str],
    redis_url: str,
    tmp_path: Path,
) -> Site:
    captured.run(
        "create table t (id bigint primary key, merchant_id integer, v integer)",
        f"insert into t select g, g % 7, 0 from generate_series(1, {ROWS}) g",
    )
    captured.install(t="merchant_id")
    return site(tmp_path, captured, capture_databases[1], topic, variables)


@pytest.fixture
def read(kafka_bootstrap: str, topic: str) -> Read:
    """The rows, and each sweep's record with its topic and partition."""

    def read() -> tuple[list[Event], list[tuple[str, int, Sweep]]]:
        rows, sweeps = [], []
        for name in (topic, f"{topic}.snapshot"):
            for record in read_topic(kafka_bootstrap, name):
                sweep = decode_sweep(record.value) if record.key is None else None
                if sweep is not None:
                    sweeps.append((name, record.partition, sweep))
                elif name != topic:
                    rows.append(decode(record.value, record.key.decode()))
        return rows, sweeps

    return read


def finished(captured: Captured, request: int) -> bool:
    state = snapshots.load(captured.database, request)
    assert state is not None and state.status != "failed"
    return state.finished


def reached(captured: Captured, request: int) -> snapshots.TableState:
    (state,) = snapshots.tables(captured.database, request)
    return state


def test_a_snapshot_killed_at_any_point_goes_on(captured: Captured, running: Site, read: Read) -> None:
    # Mutants: the position noted before Kafka has the rows (rows are missing); no position (each kill reads all rows again);
    # the table done before its sweep (no sweep is there); notices taken away before it (none asks for the next one), or
    # those that came when rows had been passed.
    note = "insert into cdc.notices (table_name, reason) values ('public.t', 'a test')"
    with session(captured.source.url) as connection:
        connection.execute(note)
        request = snapshots.request(captured.database, NAME)
        running.killed("snapshot.chunk:1")
        assert reached(captured, request).position is None
        running.killed("snapshot.position:2")
        halfway = reached(captured, request)
        assert halfway.first_ev is not None and halfway.position is not None
        connection.execute(note)
        for point in ("snapshot.swept:1", "snapshot.answered:1"):
            assert len(notices(connection)) == 2
            running.killed(point)
            assert not reached(captured, request).done
        running.killed("snapshot.done:1")
        assert reached(captured, request).done and len(notices(connection)) == 1
    with running.relay():
        assert wait_until(lambda: finished(captured, request), 30)
    rows, sweeps = read()
    assert {row.key["id"] for row in rows} == set(range(1, ROWS + 1))
    twice = [id for id, count in Counter(int(str(row.key["id"])) for row in rows).items() if count > 1]
    assert 0 < max(twice) <= int(halfway.position[0]) < ROWS
    assert {place[1] for place in sweeps} == {0, 1, 2} and len({place[0] for place in sweeps}) == 2
    assert {sweep.version for _, _, sweep in sweeps} == {pack(1, halfway.first_ev, EVENT)}
    assert len(sweeps) >= 3 * 2 * 3


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_commands_wait_pause_resume_and_may_be_interrupted(
    captured: Captured, running: Site, read: Read
) -> None:
    said = running.command("capture", "snapshot", NAME, "--table", "public.nothing")
    assert "captures no table public.nothing" in said.communicate(timeout=30)[0] and said.returncode == 1
    said = running.command("capture", "snapshot", NAME, "--merchant", "a b")
    assert "is no merchant id" in said.communicate(timeout=30)[0] and said.returncode == 2
    said = running.command("capture", "pause", NAME)
    assert f"no snapshot of {NAME} is open" in said.communicate(timeout=30)[0] and said.returncode == 1

    waiting = running.command("capture", "snapshot", NAME, "--table", "public.t", "--merchant", "3")
    assert wait_until(lambda: bool(snapshots.open_requests(captured.database, NAME)), 30, pause=0.1)
    (request,) = snapshots.open_requests(captured.database, NAME)
    assert (request.table, request.merchant) == ("public.t", "3")
    paused = running.command("capture", "pause", NAME, "--reason", "a sale")
    assert f"snapshot {request.id} paused" in paused.communicate(timeout=30)[0]
    with running.relay():
        assert wait_until(lambda: current(captured, request.id).detail == "paused", 30, pause=0.1)
        waiting.send_signal(signal.SIGINT)
        assert f"snapshot {request.id} goes on" in waiting.communicate(timeout=30)[0]
        assert waiting.returncode == 130 and not finished(captured, request.id)
        resumed = running.command("capture", "resume", NAME, "--reason", "over")
        assert "goes on" in resumed.communicate(timeout=30)[0] and resumed.returncode == 0
        assert wait_until(lambda: finished(captured, request.id), 30, pause=0.1)
        done = running.command("capture", "snapshot", NAME)
        assert f"{ROWS:,} rows published" in done.communicate(timeout=60)[0] and done.returncode == 0
    with captured.database.transaction() as connection:
        written = connection.execute("select verb, reason, details from actions where verb like 'capture %e'")
        assert written.fetchall()[-2:] == [
            ("capture pause", "a sale", {"snapshots": [request.id]}),
            ("capture resume", "over", {"snapshots": [request.id]}),
        ]
    assert {row.merchant for row in read()[0][: ROWS // 8]} == {"3"}


def current(captured: Captured, request: int) -> snapshots.Snapshot:
    state = snapshots.load(captured.database, request)
    assert state is not None
    return state


def test_a_snapshot_that_fails_says_so_with_its_exit_code(captured: Captured, running: Site) -> None:
    captured.run("alter table t rename column v to w")
    with running.relay():
        failed = running.command("capture", "snapshot", NAME)
        assert "capture install" in failed.communicate(timeout=60)[0] and failed.returncode == 1
