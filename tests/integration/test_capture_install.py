"""Install and uninstall: repeatable, whole or not at all, and nothing is left behind."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import psycopg
import pytest

from devstack.process import wait_until
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
from tests.integration.dumps import dumped

pytestmark = pytest.mark.integration

TABLE = "(id bigint primary key, merchant_id bigint)"


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
    monkeypatch.setattr("pipeline.capture.script._PATIENCE", 0.0)
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


# What the first release left in a source: no version, other triggers, no table of what is captured.
VERSION_1 = """
create schema cdc;
create table cdc.identity (one boolean primary key default true check (one), source text not null, uuid uuid not null,
  system_identifier bigint not null, database_oid bigint not null, generation integer not null,
  installed_at timestamptz not null);
create table cdc.marks (ev_id bigint primary key, generation integer not null,
  txid bigint not null default txid_current(), at timestamptz not null default now());
create table cdc.notices (id bigint generated always as identity primary key, table_name text not null,
  reason text not null, at timestamptz not null default now(), txid bigint not null default txid_current());
create function cdc.old_t() returns trigger language plpgsql security definer as $$ begin
  insert into pgq.event_%(queue)s_0 (ev_id, ev_time, ev_type, ev_data, ev_extra1, ev_extra3, ev_extra4)
    values (nextval('%(sequence)s'), now(), 'c', row_to_json(new), 'public.t', new.merchant_id, '{"id":' || new.id || '}');
  return null; end $$;
create trigger "!cdc" after insert or update or delete on public.t for each row execute function cdc.old_t();
insert into cdc.identity select true, 'shop', gen_random_uuid(), system_identifier, oid, 3, now()
  from pg_control_system(), pg_database where datname = current_database();
"""


def as_the_first_release_left_it(captured: Captured) -> None:
    with session(captured.source.url) as connection:
        connection.execute("select pgq.create_queue('cdc'), pgq.register_consumer('cdc', 'relay')")
        connection.execute(
            "select pgq.set_queue_config('cdc', name, '0') from unnest(array['ticker_max_lag', 'ticker_idle_period']) name"
        )
        names = queues.queue_names(connection)
        assert names is not None
        connection.execute((VERSION_1 % {"queue": names.id, "sequence": names.sequence}).encode())


def test_an_earlier_install_is_brought_up_to_date_in_place(captured: Captured) -> None:
    # Mutant: columns that are only in CREATE TABLE IF NOT EXISTS are missing after an upgrade.
    captured.run(f"create table t {TABLE}")
    as_the_first_release_left_it(captured)
    captured.run("insert into t values (1, 6)")
    with session(captured.source.url) as connection:
        with pytest.raises(PermanentError, match="version 1 of capture's schema"):
            establish(connection, captured.database, NAME, None)
        captured.install(t="merchant_id")
        assert establish(connection, captured.database, NAME, None).generation == 3
    captured.run("insert into t values (2, 6)")
    assert [event.key for event in captured.drain()] == [{"id": 1}, {"id": 2}]
    upgraded = relations_of_cdc(captured)
    captured.uninstall()
    captured.install(t="merchant_id")
    assert relations_of_cdc(captured) == upgraded


def relations_of_cdc(captured: Captured) -> list[tuple[str, ...]]:
    with session(captured.source.url) as connection:
        return connection.execute(
            "select attrelid::regclass::text, attname, format_type(atttypid, null), attnotnull from pg_attribute"
            " join pg_class c on c.oid = attrelid where relnamespace = 'cdc'::regnamespace and relkind = 'r' and attnum > 0 order by 1, attnum"
        ).fetchall()


def test_a_newer_releases_install_is_left_alone(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    captured.install(t="merchant_id")
    with session(captured.source.url) as connection:
        connection.execute("update cdc.identity set version = 99")
    with pytest.raises(PermanentError, match="newer release"):
        captured.install(t="merchant_id")


def test_an_application_is_never_the_victim_of_an_install(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutant: locks taken one after the other with a long lock_timeout make a cycle in which PostgreSQL ends the writer.
    monkeypatch.setattr("pipeline.capture.script._PATIENCE", 20.0)
    captured.run(f"create table a {TABLE}", f"create table b {TABLE}")
    wrote = Event()

    def write() -> None:
        with captured.writer() as writer, writer.transaction():
            writer.execute("insert into b values (1, 6)")
            wrote.set()
            assert wait_until(lambda: waits_for_a_lock(captured), 10)
            writer.execute("insert into a values (1, 6)")

    with ThreadPoolExecutor() as threads:
        writing = threads.submit(write)
        assert wrote.wait(10)
        captured.install(a="merchant_id", b="merchant_id")
        writing.result()
    captured.run("insert into a values (2, 6)")
    assert [event.key for event in captured.drain()] == [{"id": 2}]


def waits_for_a_lock(captured: Captured) -> bool:
    with psycopg.connect(captured.source.admin_url) as admin:
        row = admin.execute(
            "select exists (select from pg_locks where not granted and relation is not null"
            " and database = (select oid from pg_database where datname = current_database()))"
        ).fetchone()
    return row is not None and bool(row[0])
