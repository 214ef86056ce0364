"""The stand-in's reading of SQL: what is let through, how it is reworded, what is refused and with which code."""

import pytest

from devstack.redshift.errors import SqlError
from devstack.redshift.plans import CopyFromS3, Forward, Ignored, Plan, ReplaceView, Truncate
from devstack.redshift.rewrite import SERIALIZABLE, plan

ROLE = "IAM_ROLE 'arn:aws:iam::123456789012:role/loader'"
COPY = f"COPY s.t (a, b) FROM 's3://bucket/key' {ROLE} FORMAT AS CSV ZSTD MANIFEST NULL AS 'Nabc123'"


def forwarded(sql: str) -> str:
    found = plan(sql)
    assert isinstance(found, Forward)
    return found.sql


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select NVL(a, 1), LEN(b) from t", "select COALESCE(a, 1), LENGTH(b) from t"),
        ('select "Name" from "T"', 'select "name" from "t"'),
        ("select sysdate", "select pg_catalog.sysdate()"),
        ("select a::numeric", "select a:: numeric(18,0)"),
        ("select cast(a as varchar(10))", "select cast(a as varchar(10))"),
        ("select a::super, b::varbyte(3)", "select a:: jsonb, b:: bytea"),
        ("begin transaction", "BEGIN ISOLATION LEVEL REPEATABLE READ"),
        ("end", "COMMIT"),
        ("lock s.t, u", 'LOCK TABLE "s"."t", "u"'),
        ("LOCK TABLE t", 'LOCK TABLE "t"'),
        ("create schema if not exists S", 'CREATE SCHEMA IF NOT EXISTS "s"'),
        ("drop table if exists s.t cascade", 'DROP TABLE IF EXISTS "s"."t" CASCADE'),
        ("alter table t add column c integer default 1", 'ALTER TABLE "t" ADD COLUMN "c" int4 DEFAULT 1'),
        (
            "create temp table x (like s.t including defaults)",
            'CREATE TEMP TABLE "x" (LIKE "s"."t" INCLUDING CONSTRAINTS INCLUDING DEFAULTS)',
        ),
        ("create table t (a numeric)", 'CREATE TABLE "t" ("a" numeric(18,0))'),
        ("create table t (a text)", 'CREATE TABLE "t" ("a" varchar(256) CHECK (octet_length("a") <= 256))'),
        (
            "create table t (id bigint encode az64, v varchar(9) encode zstd default 'x', primary key (id))"
            " diststyle key distkey (id) compound sortkey (id, v)",
            'CREATE TABLE "t" ("id" int8 NOT NULL,'
            ' "v" varchar(9) CHECK (octet_length("v") <= 9) DEFAULT \'x\')',
        ),
        ("create table t (a double precision, b timestamp with time zone, c super)", None),
        ("create table t (a int) diststyle all sortkey (a)", None),
        ("select row_number() over (partition by a order by b desc) from t", None),
        ("select sum(x) over (order by b rows unbounded preceding) from t", None),
        ("with a (x) as (select 1) select x from a where x in (select 2)", None),
        ("insert into t (a, b) values (1, 2), (3, 4)", None),
        ("insert into t (a) select a from u where not exists (select 1 from t)", None),
        ("delete from s using s2.t where s.id = t.id", None),
        ("update t set a = 1 from u where t.id = u.id", None),
        (
            "merge into t using s on t.id = s.id when matched then delete when not matched then insert values (1)",
            None,
        ),
        ("set statement_timeout to 1000", None),
    ],
)
def test_let_through(sql: str, expected: str | None) -> None:
    assert " ".join(forwarded(sql).split()).lower() == (expected or " ".join(forwarded(sql).split())).lower()


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("insert into t values (1) on conflict do nothing", "42601"),
        ("insert into t values (1) returning a", "42601"),
        ("select distinct on (a) a from t", "0A000"),
        ("select a from t for update", "0A000"),
        ("select count(*) filter (where a) from t", "0A000"),
        ("select sum(a) over (order by b) from t", "0A000"),
        ("select first_value(a) over (order by b) from t", "0A000"),
        ("select sum(a) over w from t window w as (order by b)", "42601"),
        ("select a from t where a is distinct from b", "0A000"),
        ("select a from (values (1)) v (a)", "0A000"),
        ("select a from t where (a, b) < (1, 2)", "0A000"),
        ("select now()", "42883"),
        ("select string_agg(a, ',') from t", "42883"),
        ("select generate_series(1, 2)", "42883"),
        ("select concat('a', 'b', 'c')", "42883"),
        ("select current_timestamp", "0A000"),
        ("select a->'b' from t", "42601"),
        ("select array[1]", "42601"),
        ("select a::jsonb from t", "0A000"),
        ("select a::uuid from t", "0A000"),
        ("with x as (delete from t) select 1", "0A000"),
        ("with x as (select 1) insert into t select 1", "42601"),
        ("with x as (select 1 a) merge into t using x on t.a = x.a when matched then delete", "42601"),
        ("select 1; select 2", "42601"),
        ("savepoint a", "0A000"),
        ("create index i on t (a)", "0A000"),
        ("create type x as enum ('a')", "0A000"),
        ("create sequence s", "0A000"),
        ("delete from t as x where x.a = 1", "42601"),
        ("lock table t in share mode", "42601"),
        ("begin isolation level read committed", "42601"),
        ("create table t (a uuid)", "0A000"),
        ("create table t (a jsonb)", "0A000"),
        ("create table t (a serial)", "0A000"),
        ("create table t (a integer[])", "42601"),
        ("create table t (a varchar(65536))", "22023"),
        ("create table t (a numeric(39,0))", "22023"),
        ("create table t (a int check (a > 0))", "42601"),
        ("create table t (a int, check (a > 0))", "0A000"),
        ("create table t (a varchar(9) encode az64)", "0A000"),
        ("create table t (a int encode fast)", "42704"),
        ("create table t (a super) sortkey (a)", "0A000"),
        ("create table t (a int) distkey (b)", "42703"),
        ("create table t (a int) diststyle even distkey (a)", "42P16"),
        ("create table t (a int) diststyle key", "42P16"),
        ("create table t (a int distkey, b int distkey)", "42P16"),
        ("create table t (xmin int)", "42701"),
        ('create table t (a int, "A" int)', "42701"),
        ("create temp table s.t (a int)", "42P16"),
        ("alter table t add column a int, add column b int", "42601"),
        ("alter table t add column if not exists a int", "42601"),
        ("alter table t add column a int not null", "0A000"),
        ("copy t from stdin", "0A000"),
        ("copy t from 's3://b/k' csv manifest", "XX000"),
        (COPY.replace("123456789012", "1"), "XX000"),
        (COPY.replace("(a, b)", "(a, a)"), "42701"),
        (COPY + " FAST", "42601"),
    ],
)
def test_refused_as_redshift_refuses(sql: str, code: str) -> None:
    with pytest.raises(SqlError) as refused:
        plan(sql)
    assert (refused.value.code, refused.value.message.startswith("not covered")) == (code, False)


@pytest.mark.parametrize(
    "sql",
    [
        "unload ('select 1') to 's3://b/k'",
        "create table t as select 1",
        "create table t (a char(3))",
        "create table t (a bigint identity(1, 1))",
        "create table t (a int collate case_insensitive)",
        "alter table t drop column a",
        "alter table t alter column a type varchar(9)",
        "drop user x",
        "grant select on t to x",
        "select a from t qualify row_number() over (order by a) = 1",
        "select a into u from t",
        "set enable_case_sensitive_identifier to true",
        "merge into t using s on t.a = s.a remove duplicates",
        "create view v as select 1 with no schema binding",
        f"select a from {'x' * 64}",
        "create table db.s.t (a int)",
        COPY.replace("CSV", "PARQUET"),
        COPY.replace("ZSTD", "GZIP"),
        COPY.replace(" MANIFEST", ""),
        COPY + " MAXERROR 5",
        COPY + " TRUNCATECOLUMNS",
        COPY + " TIMEFORMAT 'epochsecs'",
        COPY.replace("Nabc123", "0"),
        COPY.replace("Nabc123", "a''b"),
    ],
)
def test_not_covered_and_says_so(sql: str) -> None:
    with pytest.raises(SqlError, match=r"^not covered by the stand-in: ") as refused:
        plan(sql)
    assert refused.value.code == "0A000"


@pytest.mark.parametrize(
    "sql",
    [
        "merge into t using s on t.a = s.a when matched then delete",
        "merge into t using s on t.a = s.a when not matched then insert values (1)",
        "merge into t using s on t.a = s.a when not matched then insert values (1) when matched then delete",
        "merge into t using s on t.a = s.a when matched and s.b then delete when not matched then insert values (1)",
        "merge into t using (select 1 a) s on t.a = s.a when matched then delete when not matched then insert values (1)",
        "merge into t x using s on x.a = s.a when matched then delete when not matched then insert values (1)",
        "merge into t using t on t.a = t.a when matched then delete when not matched then insert values (1)",
        "merge into t using s on t.a = s.a when matched then do nothing when not matched then insert values (1)",
        "merge into t using s on t.a = s.a when matched then delete when not matched then insert select 1",
        "merge into t using s on t.a = s.a when matched then delete when not matched then insert values (1) when matched then delete",
    ],
)
def test_merge_outside_redshifts_grammar(sql: str) -> None:
    with pytest.raises(SqlError):
        plan(sql)


def test_merge_skips_case_inside_its_actions() -> None:
    """Mutant: a WHEN of CASE taken for the next branch refuses this statement."""
    sql = (
        "merge into t using s on t.a = s.a when matched then update set b = case when s.b > 0 then s.b else t.b end"
        " when not matched then insert (a, b) values (s.a, case when s.b > 0 then 1 end)"
    )
    assert plan(sql).verb == "MERGE"


def test_writers_name_the_table_they_lock() -> None:
    def locks(sql: str) -> tuple[object, bool]:
        found = plan(sql)
        assert isinstance(found, Forward)
        return found.locks, found.shared

    assert locks("insert into s.t values (1)") == ((("s", "t"),), True)
    assert locks("update t set a = 1") == ((("t",),), False)
    assert locks("delete from t") == ((("t",),), False)
    assert locks("select a from t") == ((), False)


def test_copy_as_the_loader_writes_it() -> None:
    found = plan(COPY + " ROUNDEC TIMEFORMAT 'auto' DATEFORMAT 'auto' COMPUPDATE OFF STATUPDATE OFF")
    assert found == CopyFromS3(
        table=("s", "t"),
        columns=("a", "b"),
        manifest="s3://bucket/key",
        null="Nabc123",
        zstd=True,
        round_decimals=True,
        any_timestamp=True,
    )


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("truncate table s.t", Truncate(("s", "t"))),
        ("vacuum", Ignored("VACUUM", alone=True)),
        ("set query_group to 'x'", Ignored("SET")),
        (
            "create or replace view v as select 1 as a",
            ReplaceView(("v",), 'CREATE OR REPLACE VIEW "v" AS select 1 as a'),
        ),
    ],
)
def test_done_by_the_stand_in_itself(sql: str, expected: Plan) -> None:
    assert plan(sql) == expected


def test_isolation_is_the_clusters() -> None:
    assert plan("begin", SERIALIZABLE) == Forward("BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE")


def test_a_statement_beyond_sixteen_megabytes() -> None:
    with pytest.raises(SqlError, match="Statement is too large"):
        plan(f"select '{'x' * (16 << 20)}'")
