"""Install and uninstall: repeatable, whole or not at all, and nothing is left behind."""

import subprocess

import psycopg
import pytest

from pipeline.capture import queue as queues
from pipeline.capture.identity import read_identity
from pipeline.capture.lineage import establish
from pipeline.capture.queue import Queue, acquire
from pipeline.capture.session import session
from pipeline.capture.triggers import function_names
from pipeline.control import sources, tables
from pipeline.control.actions import recorded
from pipeline.errors import ConfigurationError, PermanentError, TransientError
from tests.integration.captured import NAME, Captured

pytestmark = pytest.mark.integration

TABLE = "(id bigint primary key, merchant_id bigint)"


def dumped(captured: Captured) -> str:
    """The schema as pg_dump writes it, but for the token it draws each time."""
    dump = ["pg_dump", "--schema-only", "--dbname", captured.source.admin_url]
    text = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
    return "\n".join(
        line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    )


def generation(captured: Captured) -> int:
    with session(captured.source.url) as connection:
        identity = read_identity(connection)
    assert identity is not None
    return identity.generation


def test_uninstall_leaves_nothing(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    before = dumped(captured)
    captured.install(t="merchant_id")
    assert dumped(captured) != before
    captured.run("insert into t values (1, 6)")
    captured.uninstall()
    assert dumped(captured) == before
    assert tables.load(captured.database) == []
    assert recorded(captured.database, "capture uninstall", NAME)
    captured.run("insert into t values (2, 6)")


def test_a_dry_run_changes_nothing_and_prints_what_would(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    before = dumped(captured)
    printed = captured.install(True, t="merchant_id")
    assert dumped(captured) == before
    assert sources.load(captured.database, NAME) is None
    done = captured.install(t="merchant_id")
    assert [line.split("_")[0] for line in done.statements] == [
        line.split("_")[0] for line in printed.statements
    ]
    after = dumped(captured)
    assert any("drop_queue" in statement for statement in captured.uninstall(dry_run=True))
    assert dumped(captured) == after


def test_installing_again_keeps_queue_identity_and_events(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    captured.install(t="merchant_id")
    once = dumped(captured)
    captured.run("insert into t values (1, 6)")
    captured.install(t="merchant_id")
    assert dumped(captured) == once
    assert generation(captured) == 1
    assert [event.key for event in captured.drain()] == [{"id": 1}]


def test_a_changed_table_and_another_choice_of_tables(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}", f"create table u {TABLE}")
    captured.install(t="merchant_id", u="merchant_id")
    captured.run("alter table t add column v text")
    captured.install(t="merchant_id")
    captured.run("insert into t values (1, 6, 'x')", "insert into u values (1, 6)", "truncate u")
    (event,) = captured.drain()
    assert event.row() == {"id": 1, "merchant_id": 6, "v": "x"}
    with session(captured.source.url) as connection:
        assert queues.notices(connection) == []
        left = connection.execute("select proname from pg_proc where pronamespace = 'cdc'::regnamespace")
        assert {name for (name,) in left} == function_names(captured.tables)


def test_a_queue_made_anew_takes_a_generation_above_all(captured: Captured) -> None:
    # Mutant: a generation kept over a new queue gives new changes lower versions than old ones.
    captured.run(f"create table t {TABLE}")
    captured.install(t="merchant_id")
    sources.store(captured.database, sources.Source("other", "x", 7))
    captured.uninstall()
    captured.install(t="merchant_id")
    assert generation(captured) == 8
    assert sources.load(captured.database, NAME) == sources.Source(NAME, _uuid(captured), 8)


def test_a_control_database_that_lost_the_source_learns_it_again(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    captured.install(t="merchant_id")
    with captured.database.transaction() as connection:
        connection.execute("truncate sources, tables")
    with session(captured.source.url) as connection:
        with pytest.raises(PermanentError, match="disagree"):
            establish(connection, captured.database, NAME, None)
        captured.install(t="merchant_id")
        assert establish(connection, captured.database, NAME, None).generation == 1


def test_a_copy_of_a_source_does_not_publish_as_the_original(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    captured.install(t="merchant_id")
    with session(captured.source.url) as connection:
        connection.execute("update cdc.identity set database_oid = database_oid + 1")
        with pytest.raises(PermanentError, match="copy"):
            establish(connection, captured.database, NAME, None)
    with pytest.raises(PermanentError, match="copy"):
        captured.install(t="merchant_id")


def test_whoever_holds_a_lock_is_named_and_nothing_is_half_done(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.capture.install._LOCK_TIMEOUT", "100ms")
    captured.run(f"create table t {TABLE}")
    before = dumped(captured)
    with captured.writer() as writer, writer.transaction():
        writer.execute("insert into t values (1, 6)")
        with pytest.raises(TransientError, match="locked"):
            captured.install(t="merchant_id")
    assert dumped(captured) == before


def test_uninstall_waits_for_nobody(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    captured.install(t="merchant_id")
    with session(captured.source.url) as relay:
        assert acquire(relay)
        with pytest.raises(PermanentError, match="is running"):
            captured.uninstall()


def test_a_sequence_with_a_cache_is_refused(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    captured.install(t="merchant_id")
    with session(captured.source.url) as connection:
        names = queues.queue_names(connection)
        assert names is not None
    with psycopg.connect(captured.source.admin_url, autocommit=True) as admin:
        admin.execute(f"alter sequence {names.sequence} cache 20".encode())
    with pytest.raises(ConfigurationError, match="CACHE 1"):
        captured.install(t="merchant_id")


def test_without_capture_there_is_no_queue(captured: Captured) -> None:
    with session(captured.source.url) as connection, pytest.raises(PermanentError, match="not installed"):
        Queue(connection)


def test_pgqs_functions_are_hardened_by_their_owner_and_named_to_others(captured: Captured) -> None:
    # Mutant: without it a caller's schema can offer PgQ's functions operators that run as their owner.
    captured.run(f"create table t {TABLE}")
    function = "pgq.finish_batch(bigint)"
    with psycopg.connect(captured.source.admin_url, autocommit=True) as admin:
        admin.execute(f"alter function {function} reset search_path".encode())
        assert captured.install(t="merchant_id").advice == [
            f"ALTER FUNCTION {function} SET search_path = pg_catalog, pg_temp"
        ]
        admin.execute("grant create on schema pgq to pipeline")
        admin.execute(f"alter function {function} owner to pipeline".encode())
        assert captured.install(t="merchant_id").advice == []
        hardened = admin.execute("select proconfig from pg_proc where oid = %s::regprocedure", (function,))
        assert hardened.fetchone() == (["search_path=pg_catalog, pg_temp"],)
        admin.execute(f"alter function {function} owner to devstack".encode())


def _uuid(captured: Captured) -> str:
    with session(captured.source.url) as connection:
        identity = read_identity(connection)
    assert identity is not None
    return identity.uuid
