"""The capture process on real services: whatever ends it, every commit arrives, each merchant's in order."""

import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.capture.queue import lag
from pipeline.capture.session import session
from pipeline.domain.event import Event, decode
from tests.conftest import SourceDatabase, unique
from tests.integration.capture_process import Site, site, topics
from tests.integration.captured import NAME, Captured
from tests.integration.kafka_topic import read_topic

pytestmark = pytest.mark.integration
Published = Callable[[], list[Event]]


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
    captured.run("create table t (id bigint primary key, merchant_id integer, v integer)")
    captured.install(t="merchant_id")
    return site(tmp_path, captured, capture_databases[1], topic, variables)


@pytest.fixture
def published(kafka_bootstrap: str, topic: str) -> Published:
    def read() -> list[Event]:
        records = read_topic(kafka_bootstrap, topic)
        return [decode(record.value, record.key.decode()) for record in records if record.key is not None]

    return read


def keys(published: Published) -> set[object]:
    return {event.key["id"] for event in published()}


def in_order(events: list[Event]) -> bool:
    """Each merchant's first deliveries come in the order of their versions; one writer made them all."""
    newest: dict[str, int] = {}
    seen = set()
    for event in events:
        if (event.merchant, event.version) in seen:
            continue
        seen.add((event.merchant, event.version))
        if event.version < newest.get(event.merchant, 0):
            return False
        newest[event.merchant] = event.version
    return True


def test_killed_at_any_point_it_loses_nothing(
    captured: Captured, running: Site, published: Published
) -> None:
    # Mutant: finish_batch before the acknowledgements loses the batch at relay.midway.
    points = [
        "relay.batch:1",
        "relay.announced:1",
        "relay.published:1",
        "relay.finished:1",
        "relay.midway:1",
    ]
    expected = set()
    for place, point in enumerate(points):
        first = place * 10_000
        captured.run(
            f"insert into t select g, g % 7, 0 from generate_series({first + 1}, {first + 5000}) g",
            f"update t set v = 1, merchant_id = merchant_id + 1 where id = {first + 1}",
            f"delete from t where id = {first + 2}",
        )
        expected |= set(range(first + 1, first + 5001))
        running.killed(point)
    with running.relay():
        captured.run("insert into t values (0, 0, 0)")
        assert wait_until(lambda: 0 in keys(published), 20, pause=0.3)
    events = published()
    assert {event.key["id"] for event in events if event.op == "c"} == expected | {0}
    assert in_order(events)
    assert len(events) > len({(event.merchant, event.version) for event in events})


def test_progress_stands_before_the_records_it_announces(
    captured: Captured, running: Site, published: Published, kafka_bootstrap: str, topic: str
) -> None:
    # Mutants: the announcement after the records; a new mark for a batch that comes again.
    captured.run("insert into t values (1, 6, 0)")
    running.killed("relay.announced:1")
    (first,) = announced(kafka_bootstrap, topic)
    assert published() == []
    running.killed("relay.published:1")
    assert announced(kafka_bootstrap, topic) == [first, first]
    (event,) = published()
    assert (event.tick, event.gen) == (first.tick, first.generation)


class Announced(NamedTuple):
    source: str
    generation: int
    tick: int
    mark: str


def announced(bootstrap: str, topic: str) -> list[Announced]:
    records = [msgspec.json.decode(record.value) for record in read_topic(bootstrap, f"{topic}.progress")]
    return [Announced(each["source"], each["generation"], each["tick"], each["mark"]) for each in records]


def test_it_comes_back_after_postgresql_ended_its_session(
    captured: Captured, running: Site, published: Published
) -> None:
    with running.relay() as relay:
        captured.run("insert into t values (1, 6, 0)")
        assert wait_until(lambda: keys(published) == {1}, 20, pause=0.2)
        assert _end_sessions(captured.source) == 1
        captured.run("insert into t values (2, 6, 0)")
        assert wait_until(lambda: keys(published) == {1, 2}, 20, pause=0.2)
        assert relay.poll() is None


def _end_sessions(source: SourceDatabase) -> int:
    with psycopg.connect(source.admin_url, autocommit=True) as admin:
        ended = admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and application_name = 'pipeline capture'"
        )
        return len(ended.fetchall())


def test_a_second_relay_stands_by_and_takes_over(
    captured: Captured, running: Site, published: Published
) -> None:
    first = running.command("capture", "run", NAME)
    try:
        captured.run("insert into t values (1, 6, 0)")
        assert wait_until(lambda: keys(published) == {1}, 20, pause=0.2)
        with running.relay() as second:
            assert second.stdout is not None
            while "standing by" not in second.stdout.readline():
                assert second.poll() is None
            first.send_signal(signal.SIGKILL)
            captured.run("insert into t values (2, 6, 0)")
            assert wait_until(lambda: keys(published) == {1, 2}, 20, pause=0.2)
    finally:
        first.kill()
        first.communicate()


def peak(pid: int) -> int:
    """The most memory the process ever held, in kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def test_memory_does_not_grow_with_the_transaction(captured: Captured, running: Site) -> None:
    # Mutants: the batch fetched whole instead of streamed; no bound on what is outstanding in the client.
    with running.relay() as relay, session(captured.source.url) as connection:

        def drained() -> bool:
            return lag(connection).seconds == 0

        peaks = []
        for count, first in ((10_000, 0), (60_000, 10_000)):
            captured.run(
                f"insert into t select g, g % 97, 0 from generate_series({first + 1}, {first + count}) g"
            )
            assert wait_until(drained, 60, pause=0.2)
            peaks.append(peak(relay.pid))
        assert peaks[1] < peaks[0] * 1.15


def test_a_commit_later_than_its_tick_is_published_without_further_traffic(
    captured: Captured, running: Site, published: Published
) -> None:
    # Mutant: without the probe the event waits for the next write.
    with running.relay(), captured.writer() as writer:
        with writer.transaction():
            writer.execute("insert into t values (1, 6, 0)")
            captured.run("insert into t values (2, 6, 0)")
            assert wait_until(lambda: keys(published) == {2}, 20, pause=0.2)
        assert wait_until(lambda: keys(published) == {1, 2}, 10, pause=0.2)


def test_the_commands_install_snapshot_and_uninstall(
    captured: Captured, running: Site, published: Published
) -> None:
    captured.run("insert into t values (1, 6, 0)")
    for arguments, said in (
        (("install", NAME), "1 tables captured"),
        (("install", NAME, "--dry-run"), "CREATE OR REPLACE TRIGGER"),
        (("snapshot", NAME, "--no-wait"), "requested"),
    ):
        output, _ = running.command("capture", *arguments).communicate(timeout=30)
        assert said in output
    with running.relay():
        output, _ = running.command("capture", "snapshot", NAME).communicate(timeout=30)
        assert "1 rows published" in output
        refused = running.command("capture", "uninstall", NAME)
        output, _ = refused.communicate(timeout=30)
        assert refused.returncode == 1 and "is running" in output
    output, _ = running.command("capture", "uninstall", NAME, "--reason", "test").communicate(timeout=30)
    assert "nothing of ours is left" in output
