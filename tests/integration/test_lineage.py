"""Which databases may publish as a source, and at which generation."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from devstack.postgres import drop_database
from pipeline.capture.confirm import confirm
from pipeline.capture.identity import server_of
from pipeline.capture.lineage import check_still_ours, establish, raise_generation
from pipeline.capture.progress import Progress
from pipeline.capture.queue import Queue
from pipeline.capture.session import Connection, session
from pipeline.control import snapshots, sources
from pipeline.domain.version import MAX_GENERATION
from pipeline.errors import FencedError, PermanentError
from tests.conftest import SourceDatabase, at, unique
from tests.integration.captured import NAME, Captured, configured

pytestmark = pytest.mark.integration
TABLE = "create table t (id bigint primary key, merchant_id integer)"


@pytest.fixture
def installed(captured: Captured) -> Captured:
    captured.run(TABLE)
    captured.install(t="merchant_id")
    return captured


@pytest.fixture
def connection(installed: Captured) -> Iterator[Connection]:
    with session(installed.source.url) as connection:
        yield connection


def publish(connection: Connection) -> Progress:
    """Finish a batch as a relay does; what Kafka then has as its progress."""
    queue = Queue(connection)
    queue.tick()
    batch = queue.next_batch()
    assert batch is not None and queue.finish(batch)
    return Progress(NAME, batch.generation, batch.tick, batch.mark, server_of(connection).timeline)


def confirmed(captured: Captured, url: str, published: Progress | None) -> int:
    """`pipeline capture confirm`; the generation it gives."""
    source = configured(t="merchant_id")
    done = confirm(captured.database, NAME, source, url, published, actor="test", reason="a test")
    assert done is not None and done.generation is not None
    return done.generation


def test_a_source_that_has_what_it_published_goes_on(installed: Captured, connection: Connection) -> None:
    assert establish(connection, installed.database, NAME, None).generation == 1
    first, second = publish(connection), publish(connection)
    for published in (first, second):
        identity = establish(connection, installed.database, NAME, published)
        assert (identity.generation, identity.timeline) == (1, server_of(connection).timeline)
    assert snapshots.newest(installed.database, NAME) is None


def test_a_replayed_batch_keeps_its_mark_and_its_generation(
    installed: Captured, connection: Connection
) -> None:
    # Mutant: the generation read beside the batch; events of one batch then come under two generations.
    queue = Queue(connection)
    queue.tick()
    first = queue.next_batch()
    identity = establish(connection, installed.database, NAME, None)
    assert raise_generation(connection, installed.database, identity, None).generation == 2
    again = queue.next_batch()
    assert first is not None and again == first and again.generation == 1
    assert queue.finish(again)
    queue.tick()
    later = queue.next_batch()
    assert later is not None and later.generation == 2 and later.mark != first.mark


def test_an_old_copy_of_the_disk_is_refused_until_confirmed(
    installed: Captured, connection: Connection
) -> None:
    # Mutant: without the look for the mark it goes on at the generation whose versions are used.
    establish(connection, installed.database, NAME, None)
    published = publish(connection)
    connection.execute("delete from cdc.progress")  # as it was before
    with pytest.raises(PermanentError, match="lacks what source shop published"):
        establish(connection, installed.database, NAME, published)
    assert snapshots.newest(installed.database, NAME) is None
    assert confirmed(installed, installed.source.url, published) == 2
    assert snapshots.newest(installed.database, NAME) is not None
    assert establish(connection, installed.database, NAME, published).generation == 2


def test_a_kafka_without_the_sources_progress_is_refused_until_confirmed(
    installed: Captured, connection: Connection
) -> None:
    # Mutant: without the look for finished marks its consumers miss all that the former Kafka had.
    establish(connection, installed.database, NAME, None)
    publish(connection)
    with pytest.raises(PermanentError, match="Kafka has no progress"):
        establish(connection, installed.database, NAME, None)
    assert confirmed(installed, installed.source.url, None) == 2
    assert establish(connection, installed.database, NAME, None).generation == 2


def test_a_server_that_was_replaced_is_refused(installed: Captured, connection: Connection) -> None:
    # Mutant: without comparing timelines the old primary publishes beside the new one.
    published = publish(connection)
    later = Progress(NAME, 1, published.tick, published.mark, published.timeline + 1)
    with pytest.raises(PermanentError, match="moved on to timeline"):
        establish(connection, installed.database, NAME, later)
    identity = establish(connection, installed.database, NAME, published)
    check_still_ours(installed.database, identity)
    for change in (
        {"timeline": published.timeline + 1},
        {"generation": 2},
        {"identity": "5" * 8 + "-0000-0000-0000-" + "0" * 12},
    ):
        known = sources.load(installed.database, NAME)
        assert known is not None
        sources.store(installed.database, replace(known, **change))
        with pytest.raises(FencedError, match="taken over"):
            check_still_ours(installed.database, identity)
        with installed.database.transaction() as control:
            control.execute("truncate sources")
        sources.store(installed.database, known)
        check_still_ours(installed.database, identity)


def test_a_control_database_from_an_old_backup_refuses_to_start(
    installed: Captured, connection: Connection
) -> None:
    # Mutant: without the comparison it would hand out generations that are in use.
    backup = sources.load(installed.database, NAME)
    identity = establish(connection, installed.database, NAME, None)
    assert backup is not None
    raise_generation(connection, installed.database, identity, None)
    with installed.database.transaction() as control:
        control.execute("truncate sources")
    sources.store(installed.database, backup)
    with pytest.raises(PermanentError, match=r"2 is used, 1 known.*capture install"):
        establish(connection, installed.database, NAME, None)
    installed.install(t="merchant_id")
    assert establish(connection, installed.database, NAME, None).generation == 2
    ahead = Progress(NAME, 7, 1, "0" * 8 + "-0000-0000-0000-" + "0" * 12, 1)
    with pytest.raises(PermanentError, match=r"7 is used, 2 known.*capture confirm"):
        establish(connection, installed.database, NAME, ahead)
    assert confirmed(installed, installed.source.url, ahead) == 8


def test_a_raise_goes_above_every_generation_known_anywhere(
    installed: Captured, connection: Connection
) -> None:
    # Mutants: each of the three left out.
    identity = establish(connection, installed.database, NAME, None)
    published = Progress(NAME, 5, 1, "-", 1)
    assert raise_generation(connection, installed.database, identity, published).generation == 6
    sources.store(installed.database, sources.Source("other", "x", 9))
    raised = raise_generation(connection, installed.database, identity, published)
    assert raised.generation == 10
    with installed.database.transaction() as control:
        control.execute("truncate sources")
    assert raise_generation(connection, installed.database, raised, None).generation == 11
    known = sources.load(installed.database, NAME)
    assert known is not None and known.generation == 11
    last = replace(raised, generation=MAX_GENERATION)
    with pytest.raises(PermanentError, match="the last there is"):
        raise_generation(connection, installed.database, last, None)


@pytest.fixture
def clone(installed: Captured, postgres_url: str) -> Iterator[SourceDatabase]:
    """A copy of the source database, as a restore makes it."""
    source, name = installed.source, unique("source")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(name), sql.Identifier(source.name)
            )
        )
        admin.execute(
            sql.SQL("grant create, connect on database {} to pipeline").format(sql.Identifier(name))
        )
    yield SourceDatabase(name, at(source.url, name), at(source.writer_url, name), at(source.admin_url, name))
    drop_database(postgres_url, name)


def test_a_clone_publishes_nothing_until_confirmed_and_then_under_a_generation_of_its_own(
    installed: Captured, clone: SourceDatabase
) -> None:
    # Mutant: without the comparison of server and database the clone publishes as the original.
    with session(clone.url) as copy, pytest.raises(PermanentError, match="is a copy of source shop"):
        establish(copy, installed.database, NAME, None)
    with psycopg.connect(clone.writer_url, autocommit=True) as writer:
        writer.execute("insert into t values (1, 6)")
    source = configured(t="merchant_id")
    tried = confirm(installed.database, NAME, source, clone.url, None, actor="test", reason="", dry_run=True)
    assert tried is not None and tried.generation is None
    assert confirmed(installed, clone.url, None) == 2
    with psycopg.connect(clone.writer_url, autocommit=True) as writer:
        writer.execute("insert into t values (2, 6)")
    with session(clone.url) as copy:
        assert establish(copy, installed.database, NAME, None).generation == 2
        queue = Queue(copy)
        queue.tick()
        batch = queue.next_batch()
        assert batch is not None and batch.generation == 2
        assert [event.key for event in queue.events(batch)] == ['{"id":2}']
    assert confirm(installed.database, NAME, source, clone.url, None, actor="test", reason="") is None
    with session(installed.source.url) as original, pytest.raises(PermanentError, match="disagree"):
        establish(original, installed.database, NAME, None)


def test_nothing_is_confirmed_while_a_relay_runs(installed: Captured, connection: Connection) -> None:
    assert Queue(connection).acquire()
    with pytest.raises(PermanentError, match="is running"):
        confirmed(installed, installed.source.url, None)
