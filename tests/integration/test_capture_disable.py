"""The emergency switch, and what else must never break an application's statement."""

import threading

import psycopg
import pytest

from pipeline.capture.queue import notices
from pipeline.capture.session import session
from pipeline.errors import PermanentError
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

TABLE = "(id bigint primary key, merchant_id bigint)"


@pytest.fixture
def shop(captured: Captured) -> Captured:
    """Two captured tables."""
    captured.run(f"create table t {TABLE}", f"create table u {TABLE}")
    captured.install(t="merchant_id", u="merchant_id")
    return captured


def told(captured: Captured) -> list[tuple[str, str]]:
    with session(captured.source.url) as connection:
        return [(notice.table, notice.reason.partition(" by ")[0]) for notice in notices(connection)]


def test_disabling_waits_for_nobody_and_enabling_asks_for_snapshots(shop: Captured) -> None:
    # Mutant: ALTER TABLE … DISABLE TRIGGER instead; it waits for the writer, and every new writer waits for it.
    with shop.writer() as busy, psycopg.connect(shop.source.admin_url, autocommit=True) as dba:
        with busy.transaction():
            busy.execute("insert into t values (1, 6)")
            dba.execute("set lock_timeout = '1ms'")
            dba.execute("select cdc.disable('queue fills the disk')")
            busy.execute("insert into u values (1, 6)")
        shop.run("insert into t values (2, 6)", "update t set merchant_id = 7", "truncate u", "delete from t")
        assert [(event.table, event.key) for event in shop.drain()] == [("public.t", {"id": 1})]
    assert told(shop) == [("every table", told(shop)[0][1])]
    assert "capture is disabled since" in told(shop)[0][1]
    shop.enable(t="merchant_id", u="merchant_id")
    assert [table for table, _ in told(shop)] == ["public.t", "public.u"]
    assert "queue fills the disk" in told(shop)[0][1]
    shop.run("insert into t values (3, 6)")
    assert [event.key for event in shop.drain()] == [{"id": 3}]


def test_only_enable_ends_it_and_it_needs_a_reason(shop: Captured) -> None:
    # Mutant: install replaces the empty functions, and capture works again with nobody told of the gap.
    with pytest.raises(PermanentError, match="say why"):
        shop.disable(" ")
    with pytest.raises(PermanentError, match="not disabled"):
        shop.enable(t="merchant_id", u="merchant_id")
    first = shop.disable("a drill")
    assert shop.disable("again") == first
    with pytest.raises(PermanentError, match=r"a drill \(to end this, run: pipeline capture enable"):
        shop.install(t="merchant_id", u="merchant_id")
    shop.run("insert into t values (1, 6)")
    assert shop.drain() == []


def test_enabling_waits_for_those_who_write_uncaptured(shop: Captured) -> None:
    # Mutant: without the lock a snapshot taken after `enable` misses rows whose writer had seen the empty trigger.
    shop.disable("a drill")
    written, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with shop.writer() as writer, writer.transaction():
            writer.execute("insert into t values (1, 6)")
            written.set()
            assert go_on.wait(20)

    thread = threading.Thread(target=write)
    thread.start()
    assert written.wait(10)
    timer = threading.Timer(1.0, go_on.set)
    timer.start()
    shop.enable(t="merchant_id", u="merchant_id")
    assert go_on.is_set()
    with session(shop.source.url) as connection:
        assert connection.execute("select count(*) from public.t").fetchone() == (1,)
    thread.join()
    timer.join()


def test_nobody_else_may_disable(shop: Captured) -> None:
    # Mutant: PostgreSQL gives EXECUTE to everybody by default.
    with psycopg.connect(shop.source.admin_url, autocommit=True) as admin:
        admin.execute("grant usage on schema cdc to app")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shop.run("select cdc.disable('mischief')")


@pytest.mark.parametrize(
    "attempt",
    [
        "select pgq.drop_queue('cdc', true)",
        "drop extension pgq",
        "drop schema cdc",
        "do $$ begin execute (select 'drop table ' || queue_data_pfx || '_1' from pgq.queue); end $$",
        "do $$ begin execute (select 'drop sequence ' || queue_event_seq from pgq.queue); end $$",
    ],
)
def test_the_queue_cannot_be_dropped_under_the_triggers(shop: Captured, attempt: str) -> None:
    # Mutant: without the view nothing depends on the queue; drop_queue succeeds and every write fails.
    with (
        psycopg.connect(shop.source.admin_url, autocommit=True) as admin,
        pytest.raises(psycopg.errors.DependentObjectsStillExist),
    ):
        admin.execute(attempt.encode())
    shop.run("insert into t values (1, 6)")
    assert [event.key for event in shop.drain()] == [{"id": 1}]


def test_who_drops_the_queue_by_force_drops_the_triggers_too(captured: Captured) -> None:
    # Mutant: triggers that do not depend on the extension stay, and fail.
    captured.run(f"create table t {TABLE}")
    captured.install(t="merchant_id")
    with psycopg.connect(captured.source.admin_url, autocommit=True) as admin:
        admin.execute("drop extension pgq cascade")
        captured.run("insert into t values (1, 6)", "delete from t")
        admin.execute("create extension pgq")
        for (harden,) in admin.execute(
            "select format('alter function %s set search_path = pg_catalog, pg_temp', oid::regprocedure)"
            " from pg_proc where pronamespace = 'pgq'::regnamespace and prosecdef"
        ).fetchall():
            admin.execute(harden)


def test_dropping_and_renaming_captured_tables_breaks_nothing(shop: Captured) -> None:
    shop.run("alter table t rename to s", "insert into s values (1, 6)", "drop table u")
    shop.run(
        "alter table s rename column merchant_id to owner_id", "insert into s values (2, 6)", "drop table s"
    )
    assert [(event.table, event.key) for event in shop.drain()] == [("public.t", {"id": 1})]
    assert [table for table, _ in told(shop)] == ["public.t"]
