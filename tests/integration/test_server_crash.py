"""A PostgreSQL that crashes and comes back: nothing was published that the crash took back, and the relay goes on."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from devstack.postgres import create_database
from devstack.private import own_site
from devstack.process import wait_until
from pipeline.capture.queue import Event, Queue
from pipeline.capture.reread import Rereader
from pipeline.capture.session import connect, session
from pipeline.control.database import ControlDatabase, migrate
from pipeline.domain.event import decode
from tests.conftest import SourceDatabase, unique
from tests.integration.capture_process import site, topics
from tests.integration.captured import Captured
from tests.integration.kafka_topic import read_topic
from tests.integration.own_services import Server, primary

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Server]:
    """Commits that nobody waits for reach its disk seconds later, so a crash takes them back."""
    with own_site(tmp_path_factory.mktemp("crash") / "stack") as place, primary(place) as server:
        with psycopg.connect(server.url("postgres", "devstack"), autocommit=True) as admin:
            admin.execute("alter system set wal_writer_delay = '10s'")
            admin.execute("alter system set autovacuum = off")
            admin.execute("select pg_reload_conf()")
        yield server


@pytest.fixture
def own(server: Server, control_url: str) -> Iterator[Captured]:
    """A captured table of the server, and a change of it: row 1 comes with v = 100."""
    name = unique("source")
    create_database(server.url("postgres", "devstack"), name)
    database = ControlDatabase(control_url)
    migrate(database)
    made = Captured(
        SourceDatabase(name, server.url(name), server.url(name, "app"), server.url(name, "devstack")),
        database,
    )
    made.run("create table t (id bigint primary key, merchant_id integer, v integer, w integer)")
    made.install(t="merchant_id")
    made.run("insert into t values (1, 6, 100)")
    yield made
    database.close()


def crash(server: Server) -> None:
    server.kill()
    server.start()


def stored(captured: Captured) -> object:
    with captured.writer() as writer:
        row = writer.execute("select v from t where id = 1").fetchone()
    assert row is not None
    return row[0]


@contextmanager
def unwaited(captured: Captured, statement: str) -> Iterator[None]:
    """The statement is committed, and its session has not waited for the disk."""
    with psycopg.connect(captured.source.writer_url, autocommit=True) as writer:
        writer.execute("set synchronous_commit = off")
        writer.execute(statement.encode())
        yield


def next_events(queue: Queue) -> list[Event]:
    queue.tick()
    batch = queue.next_batch()
    assert batch is not None
    return list(queue.events(batch))


def test_what_is_published_survives_a_crash_although_its_writer_did_not_wait(
    own: Captured, server: Server
) -> None:
    # Mutant: next_batch without synchronous_commit = on; Kafka then has v = 300, the table v = 100 for good.
    own.drain()
    with session(own.source.url) as connection, unwaited(own, "update t set v = 300"):
        (event,) = next_events(Queue(connection))
        assert event.after is not None and '"v":300' in event.after
        crash(server)
    assert stored(own) == 300
    assert [event.row()["v"] for event in own.drain()] == [300]


def test_what_is_read_again_survives_a_crash_although_its_writer_did_not_wait(
    own: Captured, server: Server
) -> None:
    # Mutant: the row read again without a commit that waits; its batch was flushed before that row was written.
    own.drain()
    own.run("alter table t drop column w", "update t set v = 200", "alter table t add column w integer")
    with session(own.source.url) as connection:
        (event,) = next_events(Queue(connection))
    with (
        closing(Rereader(partial(connect, own.source.url), own.tables)) as reread,
        unwaited(own, "update t set v = 300"),
    ):
        completed = reread.completed(event)
        assert completed is not None and completed.after is not None and '"v":300' in completed.after
        crash(server)
    assert stored(own) == 300


def test_a_relay_outlives_crashes_and_restarts_of_its_source(
    own: Captured,
    server: Server,
    control_url: str,
    kafka_bootstrap: str,
    kafka_admin: KafkaAdminClient,
    variables: Mapping[str, str],
    redis_url: str,
    tmp_path: Path,
) -> None:
    # Mutants: an outage of PostgreSQL that ends the process; one that is not waited out when it is there at the start.
    with topics(kafka_bootstrap, kafka_admin, unique("topic")) as topic:
        here = site(tmp_path, own, control_url, topic, variables)

        def published() -> set[object]:
            return {
                decode(each.value, each.key.decode()).key["id"] for each in read_topic(kafka_bootstrap, topic)
            }

        with here.relay() as relay:
            for number in range(2, 5):
                own.run(f"insert into t values ({number}, 6, 0)")
                if number == 3:
                    server.kill()
                    assert relay.stdout is not None
                    while "capture waits" not in relay.stdout.readline():
                        assert relay.poll() is None
                    server.start()
                else:
                    crash(server)
            own.run("insert into t values (5, 6, 0)")
            assert wait_until(lambda: published() == {1, 2, 3, 4, 5}, 40, pause=0.3)
            assert relay.poll() is None
