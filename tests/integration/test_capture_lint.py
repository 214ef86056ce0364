"""Lint: each thing that would lose, re-order or break is found on a real database, with SQL that mends it."""

import psycopg
import pytest

from pipeline.capture import lint as linting
from pipeline.capture.lint import Finding, lint
from pipeline.capture.session import session
from pipeline.errors import ConfigurationError
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

TABLE = "(id bigint primary key, merchant_id bigint)"
APP_OWNS = "role app may log in and owns captured tables"


@pytest.fixture
def linted(captured: Captured) -> Captured:
    """A captured table t about which there is nothing to say."""
    captured.run(f"create table t {TABLE}")
    captured.install(t="merchant_id")
    return captured


def findings(captured: Captured, *tables: str) -> list[Finding]:
    """All but the note that role app owns its own tables."""
    with session(captured.source.url) as connection:
        found = lint(connection, tables or ["public.t"])
    return [finding for finding in found if not finding.what.startswith(APP_OWNS)]


def as_superuser(captured: Captured, *statements: str) -> None:
    with psycopg.connect(captured.source.admin_url, autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.encode())


# What is done to table t, the level, the table, words of the finding, and whether its fix, run by a superuser, mends it.
# Mutant: without its rule each case finds nothing.
CASES = {
    "no key": ("alter table t drop constraint t_pkey", "refuse", "public.t", "has no primary key", False),
    "deferrable key": (
        "alter table t drop constraint t_pkey, add primary key (id) deferrable", "refuse", "public.t", "is deferrable", True,
    ),
    "unlogged": ("alter table t set unlogged", "refuse", "public.t", "is unlogged", True),
    "renamed": ("alter table t rename to s", "refuse", "public.t", "is called public.s now", True),
    "dropped": ("drop table t", "refuse", "public.t", "does not exist", False),
    "cache": ("alter sequence {sequence} cache 20", "refuse", "", "in blocks of 20", True),
    "trigger dropped": ('drop trigger "!cdc" on t', "refuse", "public.t", "has none of our triggers", False),
    "trigger disabled": ('alter table t disable trigger "!cdc"', "refuse", "public.t", "is disabled", False),
    "all triggers disabled": ("alter table t disable trigger all", "refuse", "public.t", '"!cdc" on public.t is disabled', False),
    "truncate trigger disabled": (
        'alter table t disable trigger "!cdc_truncate"', "refuse", "public.t", '"!cdc_truncate" on public.t is disabled', False,
    ),
    "replica only": (
        'alter table t enable replica trigger "!cdc"', "refuse", "public.t", "fires for replication only", False,
    ),
    "altered trigger": (
        'create or replace trigger "!cdc" after insert on t for each row execute function cdc.truncated()',
        "refuse", "public.t", "are not what was installed", False,
    ),
    "altered function": (
        "do $$ begin execute 'alter function cdc.' || (select proname from pg_proc where proname ~ '^public_t')"
        " || '() reset search_path'; end $$", "refuse", "public.t", "are not what was installed", False,
    ),
    "lost right": ("revoke insert on {events}_1 from pgq_admin", "refuse", "", "lacks INSERT on pgq.event", True),
    "lost membership": ("revoke pgq_admin from pipeline", "refuse", "", "lacks INSERT on pgq.event", True),
    "lost sequence": ("revoke all on {sequence} from pgq_admin, public", "refuse", "", "lacks USAGE on", True),
    "other trigger": (
        "create function f() returns trigger language plpgsql as 'begin return null; end';"
        "create trigger zz after update on t for each row execute function f()", "warn", "public.t", '"zz" fires AFTER', False,
    ),
    "new column": ("alter table t add column v text", "warn", "public.t", "columns have changed", False),
    "replica database": (
        "do $$ begin execute format('alter database %I set session_replication_role = replica', current_database()); end $$",
        "warn", "", "session_replication_role = replica", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_wrong_is_found_with_what_mends_it(linted: Captured, case: str) -> None:
    breaks, level, table, words, mended = CASES[case]
    assert findings(linted) == []
    with session(linted.source.url) as connection:
        row = connection.execute("select queue_data_pfx, queue_event_seq from pgq.queue").fetchone()
    assert row is not None
    try:
        as_superuser(
            linted,
            "set search_path = public; " + breaks.replace("{events}", row[0]).replace("{sequence}", row[1]),
        )
        found = findings(linted)
        assert (level, table) in [
            (finding.level, finding.table) for finding in found if words in finding.what
        ]
        if mended:
            as_superuser(linted, *(finding.fix for finding in found))
            assert [finding for finding in findings(linted) if words in finding.what] == []
    finally:
        as_superuser(
            linted, "grant pgq_admin to pipeline", f'alter database "{linted.source.name}" reset all'
        )


def test_owners_that_log_in_are_noted_and_wide_columns_told(
    linted: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linting, "WIDE_BYTES", 100)
    linted.run(
        "create table wide (id bigint primary key, merchant_id bigint, photo text)",
        "insert into wide select n, 6, repeat(n::text, 200) from generate_series(1, 100) n",
        "analyze wide",
    )
    done = linted.install(wide="merchant_id")
    assert [(finding.level, finding.table, finding.what.split(":")[0]) for finding in done.findings] == [
        ("warn", "public.wide", 'column "photo" has 388 bytes on average'),
        ("note", "", f"{APP_OWNS} (public.wide)"),
    ]


def test_a_table_that_logical_replication_writes_is_told(linted: Captured) -> None:
    linted.run("insert into t values (1, 6)")
    as_superuser(
        linted,
        "create subscription s connection 'dbname=none' publication p with (connect = false)",
        "insert into pg_subscription_rel select s.oid, 'public.t'::regclass, 'r', null from pg_subscription s"
        " where subdbid = (select oid from pg_database where datname = current_database())",
    )
    try:
        found = findings(linted)
        assert {(finding.level, "logical replication" in finding.what) for finding in found} == {
            ("warn", True)
        }
        as_superuser(linted, *(finding.fix for finding in found))
        assert findings(linted) == []
    finally:
        as_superuser(linted, "alter subscription s set (slot_name = none)", "drop subscription s")


def test_install_refuses_what_lint_refuses_and_leaves_all_as_it_was(linted: Captured) -> None:
    # Mutant: install that does not ask lint.
    with session(linted.source.url) as connection:
        row = connection.execute("select queue_event_seq from pgq.queue").fetchone()
    assert row is not None
    as_superuser(linted, f"alter sequence {row[0]} cache 20")
    linted.run(f"create table u {TABLE}")
    with pytest.raises(ConfigurationError, match=f"run: ALTER SEQUENCE {row[0]} CACHE 1"):
        linted.install(t="merchant_id", u="merchant_id")
    assert any("has none of our triggers" in finding.what for finding in findings(linted, "public.u"))


def test_a_source_without_capture(captured: Captured) -> None:
    assert [finding.what for finding in findings(captured)] == ["capture is not installed: there is no queue"]


def test_partitions_are_looked_at_too_and_can_be_added(captured: Captured) -> None:
    # Mutant: EXECUTE taken from PUBLIC and given to nobody; then the owner cannot add a partition.
    captured.run(
        "create table p (id bigint, merchant_id bigint, primary key (id)) partition by range (id)",
        "create table p1 partition of p for values from (0) to (10)",
    )
    captured.install(p="merchant_id")
    assert findings(captured, "public.p") == []
    as_superuser(captured, "revoke execute on all functions in schema cdc from app")
    (finding,) = findings(captured, "public.p")
    assert (finding.level, "nobody can add a partition" in finding.what) == ("refuse", True)
    as_superuser(captured, finding.fix)
    captured.run(
        "create unlogged table p2 partition of p for values from (10) to (20)",
        'alter table p1 disable trigger "!cdc"',
    )
    assert [(each.level, each.what.partition(":")[0]) for each in findings(captured, "public.p")] == [
        ("refuse", "partition public.p2 is unlogged"),
        ("refuse", 'trigger "!cdc" on public.p1 is disabled'),
        ("warn", "partition public.p2 has no trigger for TRUNCATE"),
    ]


def test_an_index_that_parents_need_and_a_trigger_that_came_later(captured: Captured) -> None:
    # Mutant: without its rule each finds nothing.
    captured.run(
        "create table t (id bigint primary key, merchant_id bigint)",
        "create table line (id bigint primary key, t_id bigint not null references t)",
        "create index line_t on line (t_id)",
    )
    captured.install_tables(t={}, line={"merchant": {"parent": "public.t", "on": "t_id"}})
    assert findings(captured, "public.line", "public.t") == []
    captured.run("drop index line_t")
    (finding,) = findings(captured, "public.line", "public.t")
    assert (finding.level, finding.table) == ("refuse", "public.line")
    as_superuser(captured, finding.fix)
    assert findings(captured, "public.line", "public.t") == []
