"""Merchants that are away: what happens to their rows here is not told, by the relay, by snapshots, by verify."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.capture import away, rows
from pipeline.capture.queue import Queue, nudge
from pipeline.capture.reread import Rereader
from pipeline.capture.session import connect, session
from pipeline.control import placements, sources
from pipeline.domain.event import Event, decode
from pipeline.domain.version import pack
from pipeline.verify.run import _Snapshot, _SourceReader
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
def published(kafka_bootstrap: str, topic: str) -> Published:
    return lambda: [
        decode(record.value, record.key.decode()) for record in read_topic(kafka_bootstrap, topic)
    ]


@pytest.fixture
def installed(captured: Captured) -> Captured:
    captured.run("create table t (id bigint primary key, merchant_id integer, v integer)")
    captured.install_source(captured.choose({"t": {}}, emitters=["app"]))
    return captured


@pytest.fixture
def running(
    installed: Captured,
    capture_databases: tuple[SourceDatabase, str],
    topic: str,
    variables: Mapping[str, str],
    redis_url: str,
    tmp_path: Path,
) -> Site:
    return site(tmp_path, installed, capture_databases[1], topic, variables)


def send(captured: Captured, statement: str) -> None:
    """Call one of the functions, as the role of capture."""
    with session(captured.source.url) as connection:
        connection.execute(statement.encode())


def told(published: Published, last: int) -> list[tuple[str, str, object]]:
    """Every event up to the one of row `last`."""

    def seen() -> list[tuple[str, str, object]]:
        return [(event.op, event.merchant, event.key.get("id")) for event in published()]

    assert wait_until(lambda: any(key == last for _, _, key in seen()), 30, pause=0.2)
    return seen()


def test_nothing_between_away_and_home_is_published_and_the_rest_is(
    installed: Captured, running: Site, published: Published, kafka_bootstrap: str, topic: str
) -> None:
    # Mutants: without the filter rows 2 to 5 are there; by `away_ev` alone 6 is missing; by the moving row's new merchant
    # alone the first half of 3 is there.
    installed.run("insert into t values (1, 6, 0)")
    send(installed, "select cdc.away('6')")
    installed.run(
        "insert into t values (2, 6, 0), (3, 6, 0), (4, 7, 0)",
        "update t set merchant_id = 7 where id = 3",
        "update t set merchant_id = 6 where id = 4",
        "select cdc.emit('6', 'x', '{}')",
        "select cdc.emit('7', 'y', '{}')",
        "delete from t where id = 1",
    )
    send(installed, "select cdc.home('6')")
    installed.run("insert into t values (6, 6, 0)", "insert into t values (9, 8, 0)")
    with running.relay():
        events = told(published, 9)
    sixes, sevens = ([(op, key) for op, owner, key in events if owner == name] for name in ("6", "7"))
    assert sixes == [("c", 1), ("c", 6)]
    assert sevens == [("c", 4), ("u", 3), ("d", 4), ("event", None)]
    assert [record.key for record in read_topic(kafka_bootstrap, f"{topic}.events")] == [b"7"]


def test_a_batch_that_comes_again_leaves_out_the_same(
    installed: Captured, running: Site, published: Published
) -> None:
    # Mutant: intervals forgotten at once when a merchant is home again; row 2 is published by the second relay.
    send(installed, "select cdc.away('6')")
    installed.run("insert into t values (2, 6, 0)", "insert into t values (3, 7, 0)")
    running.killed("relay.published:1")
    send(installed, "select cdc.home('6')")
    with running.relay(), session(installed.source.url) as connection:
        installed.run("insert into t values (4, 6, 0)")
        events = told(published, 4)
        assert [key for _, _, key in sorted(events, key=lambda event: str(event[2]))] == [3, 3, 4]

        def forgotten() -> bool:  # a source without traffic has no further tick by itself
            nudge(connection)
            return not known(connection)

        assert wait_until(forgotten, 60, pause=0.2)


def known(connection: "psycopg.Connection[tuple[object, ...]]") -> list[tuple[object, ...]]:
    return connection.execute("select merchant, home_ev is null from cdc.away order by away_ev").fetchall()


def test_an_interval_is_kept_until_every_transaction_of_its_time_is_published(installed: Captured) -> None:
    # Mutant: forgetting what lies behind the last finished tick, and not behind all that it saw running.
    send(installed, "select cdc.away('6')")
    with session(installed.source.url) as connection, installed.writer() as writer:
        queue = Queue(connection)
        with writer.transaction():
            writer.execute("insert into t values (1, 6, 0)")
            away.bring_home(connection, "6")
            queue.tick()
            assert list(installed.batches(queue)) == []
            away.forget(connection)
            assert known(connection) == [("6", False)]
        queue.tick()
        batch = queue.next_batch()
        assert batch is not None
        assert [away.is_away(batch.away, event.merchant, event.ev) for event in queue.events(batch)] == [True]
        queue.finish(batch)

        def forgotten() -> bool:  # other databases' transactions share the server's ids
            queue.tick()
            list(installed.batches(queue))
            away.forget(connection)
            return known(connection) == []

        assert wait_until(forgotten, 60)


def test_going_away_twice_is_once_and_coming_back_is_told_apart(installed: Captured) -> None:
    with session(installed.source.url) as connection:
        assert away.send_away(connection, "6") == away.send_away(connection, "6")
        away.bring_home(connection, "6")
        away.bring_home(connection, "6")
        away.send_away(connection, "6")
        assert known(connection) == [("6", False), ("6", True)]
        assert away.merchants(connection) == ["6"]
        for statement in ("select cdc.away('_shop')", "select cdc.away(null)"):
            with pytest.raises(psycopg.errors.RaiseException, match="no merchant id"):
                connection.execute(statement.encode())
        with connection.transaction(), pytest.raises(psycopg.errors.RaiseException, match="of its own"):
            connection.execute("select txid_current()")
            connection.execute("select cdc.away('7')")
    with installed.writer() as writer:
        for statement in ("select cdc.away('6')", "select cdc.home('6')", "delete from cdc.away"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                writer.execute(statement.encode())


def test_rows_of_a_merchant_that_is_away_are_not_shown(captured: Captured) -> None:
    # Mutant: without the condition a snapshot of the former home tells of rows that are another source's by now.
    captured.run(
        "create table t (id bigint primary key, merchant_id text)",
        "create table u (id bigint primary key, t_id bigint references t)",
        "create index on u (t_id)",
        "insert into t values (1, '6'), (2, '7'), (3, null), (4, '6')",
        "insert into u values (1, 1), (2, 2), (3, null)",
    )
    captured.install_tables(t={}, u={"merchant": {"parent": "public.t", "on": "t_id"}})
    send(captured, "select cdc.away('6')")
    expected = {"public.t": {("7", 2), ("_shop", 3)}, "public.u": {("7", 2), ("_shop", 3)}}
    with session(captured.source.url) as connection, connection.transaction():
        for table in captured.tables:
            chunk = rows.read_chunk(connection, table, None)
            for found in (chunk.rows, rows.read_rows(connection, table)):
                shown = {(row.merchant, int(row.key.strip('{"id:}'))) for row in found}
                assert shown == expected[table.name]
            assert list(rows.read_rows(connection, table, "6")) == []
            assert rows.read_row(connection, table, {"id": 1}) is None
            assert rows.read_row(connection, table, {"id": 2}) is not None


def test_a_row_is_not_read_again_for_a_merchant_that_is_away(installed: Captured) -> None:
    installed.run("insert into t values (1, 6, 0)")
    with session(installed.source.url) as connection:
        queue = Queue(connection)
        queue.tick()
        batch = queue.next_batch()
        assert batch is not None
        (event,) = queue.events(batch)
    rereader = Rereader(lambda: connect(installed.source.url), installed.tables)
    assert rereader.completed(event) is not None
    send(installed, "select cdc.away('6')")
    assert rereader.completed(event) is None


def test_a_generation_is_raised_when_asked_and_no_batch_is_split(
    installed: Captured, running: Site, published: Published
) -> None:
    # Mutants: killed in the middle, the next relay finds the control database ahead and refuses, or goes on below it.
    installed.run("insert into t values (1, 6, 0)")
    running.killed("relay.published:1")
    sources.ask_to_raise(installed.database, NAME, 4)
    sources.store(installed.database, sources.Source("other", "x", 6))
    running.killed("generation.raised:1")
    stored = sources.load(installed.database, NAME)
    assert stored is not None and stored.generation == 7
    with running.relay() as relay:
        installed.run("insert into t values (2, 6, 0)")
        told(published, 2)
        sources.ask_to_raise(installed.database, NAME, 8)
        assert wait_until(lambda: _generation(installed) == 9, 30, pause=0.1)
        installed.run("insert into t values (3, 6, 0)")
        told(published, 3)
        assert relay.poll() is None
    assert sorted((event.key["id"], event.gen) for event in published()) == [(1, 1), (1, 1), (2, 8), (3, 9)]


def _generation(captured: Captured) -> int:
    with session(captured.source.url) as connection:
        return Queue(connection).generation()


def test_close_to_the_last_generation_none_is_raised_for_a_move(installed: Captured, running: Site) -> None:
    sources.store(installed.database, sources.Source("other", "x", 16_000))
    sources.ask_to_raise(installed.database, NAME, 5)
    with running.relay():

        def taken_back() -> bool:
            found = sources.load(installed.database, NAME)
            return found is not None and found.raise_above is None

        assert wait_until(taken_back, 30, pause=0.1)
        assert _generation(installed) == 1


def test_verify_compares_nothing_of_a_merchant_on_the_way(installed: Captured) -> None:
    # Mutant: without it the rows of who is away in both sources are phantoms in every sink.
    installed.run("insert into t values (1, 6, 0), (2, 7, 0)")
    placements.begin(installed.database, "6", NAME, "other", "a test", held=False)
    under_way = [placement.merchant for placement in placements.under_way(installed.database)]
    (table,) = installed.tables
    with session(installed.source.url) as connection, connection.transaction():
        snapshot = _Snapshot(NAME, connection, {"t": table}, "", pack(1, 1))
        for moving, expected in (([], ["6", "7"]), (under_way, ["7"])):
            assert sorted(row.merchant for row in _SourceReader([snapshot], moving)("t", None)) == expected
