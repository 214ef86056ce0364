"""What the loader needs of Redshift, with the real driver over TLS and real S3.

The same tests run on a live cluster with `-m redshift_live` (docs/redshift-stand-in.md), so they look at codes
and effects, not at the wording of messages.
"""

import contextlib
import datetime as dt
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import pytest
import redshift_connector
import zstandard
from redshift_connector.core import Connection
from redshift_connector.error import Error

from tests.conftest import connect_warehouse
from tests.integration.redshift_sockets import refused_connection

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = [pytest.mark.integration, pytest.mark.redshift_live]

ROLE = os.environ.get("REDSHIFT_IAM_ROLE", "arn:aws:iam::123456789012:role/loader")
NULL = "Nabc123"
OPTIONS = "ROUNDEC TIMEFORMAT 'auto' DATEFORMAT 'auto' COMPUPDATE OFF STATUPDATE OFF"


@dataclass(slots=True)
class Session:
    """A connection in a schema of its own, and what tests do with it."""

    connection: Connection
    schema: str
    errors: list[Mapping[str, str]] = field(default_factory=list)

    def run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute; `{s}` is the schema. Returns the rows, if the statement has any."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql.replace("{s}", self.schema), values or None)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def refused(self, sql: str) -> str:
        """Execute what must fail; returns the SQLSTATE and rolls back."""
        with pytest.raises(Error) as failure:
            self.run(sql)
        self.connection.rollback()
        return str(failure.value.args[0]["C"])


@pytest.fixture
def connect(warehouse_url: str, warehouse_schema: str) -> Iterator[Callable[[], Session]]:
    with contextlib.ExitStack() as stack:
        yield lambda: Session(stack.enter_context(connect_warehouse(warehouse_url)), warehouse_schema)


@pytest.fixture
def session(connect: Callable[[], Session]) -> Session:
    return connect()


@dataclass(frozen=True, slots=True)
class Staging:
    """Puts CSV parts and their manifest on S3."""

    client: "S3Client"
    bucket: str
    prefix: str

    def put(self, key: str, body: bytes) -> str:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=body)
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def manifest(self, *parts: str, **entry: object) -> str:
        """A manifest of parts with this text; `entry` changes what it says of each."""
        entries = []
        for number, text in enumerate(parts):
            body = zstandard.compress(text.encode("utf-8", "surrogateescape"))
            url = self.put(f"{number}.csv.zst", body)
            entries.append({"url": url, "mandatory": True, "meta": {"content_length": len(body)}, **entry})
        return self.put("manifest", msgspec.json.encode({"entries": entries}))

    def copy(self, table: str, columns: str, *parts: str, **entry: object) -> str:
        """The COPY statement of such a manifest."""
        return copy_statement(table, columns, self.manifest(*parts, **entry))


def copy_statement(table: str, columns: str, manifest: str) -> str:
    return (
        f"COPY {table} ({columns}) FROM '{manifest}' IAM_ROLE '{ROLE}' FORMAT AS CSV ZSTD MANIFEST"
        f" NULL AS '{NULL}' {OPTIONS}"
    )


@pytest.fixture
def staging(s3_client: "S3Client", s3_prefix: str, variables: Mapping[str, str]) -> Staging:
    return Staging(s3_client, variables["S3_BUCKET"], s3_prefix)


def test_a_wrong_password_is_refused(warehouse_url: str) -> None:
    parts = urlsplit(warehouse_url)
    wrong = warehouse_url.replace(f":{parts.password}@", ":wrong@")
    assert refused_connection(lambda: connect_warehouse(wrong))["C"] == "28000"


def test_values_come_back_as_python_knows_them(session: Session) -> None:
    (row,) = session.run(
        "select 1::smallint, 2::bigint, 1.5::numeric(18,4), -1.25::numeric(38,2), 0.5::double precision, true,"
        " 'ä'::varchar(4), date '2024-02-29', timestamp '2024-01-01 01:02:03.000004', null::integer,"
        " json_parse('[1]')"
    )
    assert row[:10] == (
        1, 2, Decimal("1.5"), Decimal("-1.25"), 0.5, True, "ä", dt.date(2024, 2, 29),
        dt.datetime.fromisoformat("2024-01-01 01:02:03.000004"), None,
    )  # fmt: skip
    assert msgspec.json.decode(row[10]) == [1]


@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_client_protocol(warehouse_url: str, version: int) -> None:
    parts = urlsplit(warehouse_url)
    with redshift_connector.connect(
        host=parts.hostname,
        port=parts.port,
        database=parts.path.strip("/"),
        user=parts.username,
        password=parts.password,
        sslmode="verify-full",
        client_protocol_version=version,
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("select 1.25::numeric(10,2), 'x'::varchar(3) where 1 = %s", (1,))
        assert [tuple(row) for row in cursor.fetchall()] == [(Decimal("1.25"), "x")]


@pytest.mark.parametrize(
    "sql",
    [
        "insert into {s}.t values (1) on conflict do nothing",
        "insert into {s}.t values (1) returning id",
        "select distinct on (id) id from {s}.t",
        "select sum(id) over (order by id) from {s}.t",
        "select string_agg(v, ',') from {s}.t",
        "select v::jsonb from {s}.t",
        "select array[1]",
        "create index i on {s}.t (id)",
        "create table {s}.x (a uuid)",
        "create table {s}.x (a varchar(65536))",
        "create table {s}.x (a varchar(3) encode az64)",
        "create table {s}.x (a super) sortkey (a)",
        "alter table {s}.t add column a int, add column b int",
        "alter table {s}.t add column a int not null",
        "delete from {s}.t as x where x.id = 1",
        "savepoint a",
        "copy {s}.t from stdin",
        "copy {s}.t from 's3://b/k' csv manifest",
    ],
)
def test_redshift_lacks_it(session: Session, sql: str) -> None:
    session.run("create table {s}.t (id bigint, v varchar(9))")
    session.run("commit")
    session.run("insert into {s}.t values (1, 'a')")
    session.refused(sql)  # and aborts the transaction:
    assert session.run("select * from {s}.t") == []


def test_a_refused_statement_aborts_the_transaction(session: Session) -> None:
    session.run("create table {s}.t (id bigint)")
    with pytest.raises(Error):
        session.run("select now() from {s}.t for update")
    with pytest.raises(Error) as failure:
        session.run("select 1")
    assert failure.value.args[0]["C"] == "25P02"


def test_several_statements_in_one(session: Session) -> None:
    assert session.refused("select 1; select 2")


def test_keys_are_not_enforced_but_lengths_are_in_bytes(session: Session) -> None:
    session.run("create table {s}.t (id bigint primary key, v varchar(5))")
    session.run("insert into {s}.t values (1, 'a'), (1, 'b')")
    assert session.run("select count(*) from {s}.t") == [(2,)]
    session.connection.commit()
    assert session.refused("insert into {s}.t values (2, 'ééé')") == "22001"


def test_bare_numeric_has_no_fraction(session: Session) -> None:
    session.run("create table {s}.t (a numeric)")
    session.run("insert into {s}.t values (%s)", Decimal("1.6"))
    assert session.run("select a from {s}.t") == [(2,)]


def test_names_are_folded_even_in_quotes(session: Session) -> None:
    session.run('create table {s}."Mixed" ("Column" int)')
    assert session.run('select "COLUMN" from {s}.mixed') == []


def test_svv_all_columns(session: Session) -> None:
    session.run("create table {s}.t (id bigint, s super)")
    found = session.run(
        "select column_name from svv_all_columns where schema_name = %s and table_name = 't'"
        " order by ordinal_position",
        session.schema,
    )
    assert found == [("id",), ("s",)]


def test_truncate_commits(session: Session, connect: Callable[[], Session]) -> None:
    """Mutant: TRUNCATE without its COMMIT lets the rollback undo both."""
    session.run("create table {s}.t (id bigint)")
    session.run("create table {s}.u (id bigint)")
    session.run("insert into {s}.t values (1)")
    session.run("insert into {s}.u values (1)")
    session.run("truncate {s}.t")
    session.connection.rollback()
    assert connect().run("select (select count(*) from {s}.t), (select count(*) from {s}.u)") == [(0, 1)]


def test_a_replaced_view_keeps_its_columns(session: Session) -> None:
    """Mutant: PostgreSQL alone lets a view grow at its end."""
    session.run("create table {s}.t (id bigint, v varchar(9))")
    session.run("create or replace view {s}.w as select id from {s}.t")
    session.run("create or replace view {s}.w as select id from {s}.t where id > 0")
    session.connection.commit()
    session.refused("create or replace view {s}.w as select id, v from {s}.t")
    assert session.run("select * from {s}.w") == []


def test_statement_timeout(session: Session, connect: Callable[[], Session]) -> None:
    session.run("create table {s}.t (id bigint)")
    session.connection.commit()
    session.run("lock {s}.t")
    other = connect()
    other.run("set statement_timeout to 300")
    assert other.refused("lock {s}.t") == "57014"


# COPY.

TABLE = """create table {s}.t (
    id bigint not null, small smallint, amount numeric(6,2), ratio double precision, single real, yes boolean,
    name varchar(5), day date, at timestamp, tz timestamptz, clock time, doc super, raw varbyte(4)
) diststyle key distkey (id) compound sortkey (id)"""
COLUMNS = "id, small, amount, ratio, single, yes, name, day, at, tz, clock, doc, raw"


def test_copy_converts_every_type(session: Session, staging: Staging) -> None:
    session.run(TABLE)
    full = (
        "1,-32768,1.235,1.5,0.25,t,é\\t,2024-02-29,2024-01-01T01:02:03.5,2024-01-01T02:00:00+02:00,"
        '23:59:59,"{""a"": ""x\\n""}",00ff\n'
    )
    nulls = ",".join(["2", *[NULL] * 12]) + "\n"
    empty = "3" + "," * 12 + "\n"
    session.run(staging.copy("{s}.t", COLUMNS, full + nulls, empty).replace("{s}", session.schema))
    assert session.run("select pg_last_copy_count()") == [(3,)]
    one, two, three = session.run(f"select {COLUMNS} from {{s}}.t order by id")
    utc = dt.UTC
    assert one[:10] == (
        1, -32768, Decimal("1.24"), 1.5, 0.25, True, "é\\t", dt.date(2024, 2, 29),
        dt.datetime.fromisoformat("2024-01-01 01:02:03.5"), dt.datetime(2024, 1, 1, tzinfo=utc),
    )  # fmt: skip
    assert msgspec.json.decode(one[11]) == {"a": "x\n"}
    assert one[12] == "00ff"
    assert two[1:] == (None,) * 12
    assert (three[6], three[1]) == ("", None)  # an empty field is an empty string, and NULL for other types


def test_columns_that_copy_does_not_name_take_their_default(session: Session, staging: Staging) -> None:
    session.run("create table {s}.t (id bigint, n int not null default 7)")
    session.run("create temp table stage (like {s}.t including defaults)")
    session.run(staging.copy("stage", "id", "1\n"))
    assert session.run("select id, n from stage") == [(1, 7)]


def test_a_stage_without_defaults_refuses_the_same(session: Session, staging: Staging) -> None:
    session.run("create table {s}.t (id bigint, n int not null default 7)")
    session.run("create temp table stage (like {s}.t)")
    session.refused(staging.copy("stage", "id", "1\n"))


@pytest.mark.parametrize(
    ("row", "column", "code"),
    [
        ("1,2,3,4", "", 1202),
        ("1,2", "", 1203),
        ("1", "", 1214),
        ("1,éééé,3", "v", 1204),
        ("1,a,10000", "n", 1204),
        ("x,a,3", "id", 1207),
        (f"{NULL},a,3", "id", 1213),
        ("1,\udcff,3", "v", 1220),
        ("9223372036854775808,a,3", "id", 1222),
        ('1,"a"b,3', "", 1216),
    ],
)
def test_a_load_error_is_recorded_and_outlives_the_rollback(
    session: Session, staging: Staging, row: str, column: str, code: int
) -> None:
    """Mutant: recorded on the client's own session, it would go with the rollback."""
    session.run("create table {s}.t (id bigint not null, v varchar(5), n numeric(6,2))")
    session.connection.commit()
    statement = staging.copy("{s}.t", "id, v, n", "7,a,1\n", f'8,"a\nb",2\n{row}\n')
    assert session.refused(statement) == "XX000"
    assert session.run("select count(*) from {s}.t") == [(0,)]
    found = session.run(
        "select trim(colname), err_code, line_number, trim(filename) from stl_load_errors"
        " where session = pg_backend_pid() order by starttime desc limit 1"
    )
    (name, found_code, line, filename) = found[0]
    assert (name, found_code, line) == (column, code, 3)
    assert filename.endswith("1.csv.zst")


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("day", "2023-02-29", 1205),
        ("at", "yesterday", 1206),
        ("ratio", "1,5", 1208),
        ("yes", "maybe", 1210),
        ("raw", "0g", 1223),
        ("doc", "{", 1224),
    ],
)
def test_the_code_of_each_type(
    session: Session, staging: Staging, column: str, value: str, code: int
) -> None:
    session.run(TABLE)
    session.connection.commit()
    session.refused(staging.copy("{s}.t", f"id, {column}", f'1,"{value}"\n'))
    found = session.run(
        "select err_code from stl_load_errors where session = pg_backend_pid() order by starttime desc limit 1"
    )
    assert found == [(code,)]


def test_a_missing_mandatory_file_fails_and_another_is_skipped(session: Session, staging: Staging) -> None:
    session.run("create table {s}.t (id bigint)")
    session.connection.commit()
    there, body = staging.put("there", zstandard.compress(b"1\n")), zstandard.compress(b"1\n")
    missing = {"url": there + ".gone", "mandatory": True, "meta": {"content_length": len(body)}}
    entries = [{"url": there, "mandatory": True}, missing]
    url = staging.put("m1", msgspec.json.encode({"entries": entries}))
    assert session.refused(copy_statement("{s}.t", "id", url)) == "XX000"
    url = staging.put("m2", msgspec.json.encode({"entries": [entries[0], {**missing, "mandatory": False}]}))
    session.run(copy_statement("{s}.t", "id", url))
    assert session.run("select id from {s}.t") == [(1,)]


def test_a_file_of_another_length_than_the_manifest_says(session: Session, staging: Staging) -> None:
    session.run("create table {s}.t (id bigint)")
    session.connection.commit()
    assert session.refused(staging.copy("{s}.t", "id", "1\n", meta={"content_length": 1})) == "XX000"


def test_no_manifest_and_bad_manifests(session: Session, staging: Staging) -> None:
    session.run("create table {s}.t (id bigint)")
    session.connection.commit()
    for url in (
        staging.put("m1", b"{"),
        staging.put("m2", b'{"entries": [{"url": "s3://bucket"}]}'),
        staging.put("m3", b"").replace("m3", "m4"),
    ):
        assert session.refused(copy_statement("{s}.t", "id", url)) == "XX000"


def test_not_zstd(session: Session, staging: Staging) -> None:
    session.run("create table {s}.t (id bigint)")
    session.connection.commit()
    url = staging.put("plain", b"1\n")
    manifest = staging.put("m", msgspec.json.encode({"entries": [{"url": url, "mandatory": True}]}))
    assert session.refused(copy_statement("{s}.t", "id", manifest)) == "XX000"


# MERGE, and the loader's transaction.


def test_merge_updates_and_inserts(session: Session) -> None:
    session.run("create table {s}.t (id bigint, v varchar(9))")
    session.run("insert into {s}.t values (1, 'old'), (2, 'kept')")
    session.run("create temp table stage (like {s}.t including defaults)")
    session.run("insert into stage values (1, 'new'), (3, 'added'), (4, 'stale')")
    session.run("delete from stage using {s}.t where stage.id = 4")
    session.run(
        "merge into {s}.t using stage on t.id = stage.id when matched then update set v = stage.v"
        " when not matched then insert (id, v) values (stage.id, stage.v)"
    )
    assert session.run("select id, v from {s}.t order by id") == [(1, "new"), (2, "kept"), (3, "added")]


def test_merge_deletes(session: Session) -> None:
    session.run("create table {s}.t (id bigint)")
    session.run("insert into {s}.t values (1), (2)")
    session.run("create temp table stage (like {s}.t)")
    session.run("insert into stage values (1), (3)")
    session.run(
        "merge into {s}.t using stage on t.id = stage.id when matched then delete"
        " when not matched then insert values (stage.id)"
    )
    assert session.run("select id from {s}.t order by id") == [(2,), (3,)]


@pytest.mark.parametrize(
    "branches",
    [
        "when matched then delete",
        "when not matched then insert values (stage.id)",
        "when not matched then insert values (stage.id) when matched then delete",
        "when matched and t.id > 0 then delete when not matched then insert values (stage.id)",
        "when matched then do nothing when not matched then insert values (stage.id)",
    ],
)
def test_merge_wants_both_branches_without_conditions(session: Session, branches: str) -> None:
    session.run("create table {s}.t (id bigint)")
    session.run("create table {s}.stage (id bigint)")
    session.connection.commit()
    session.refused(f"merge into {{s}}.t using {{s}}.stage on t.id = stage.id {branches}")


def test_two_sources_for_one_target_row(session: Session) -> None:
    session.run("create table {s}.t (id bigint, v int)")
    session.run("create table {s}.stage (id bigint, v int)")
    session.run("insert into {s}.t values (1, 0)")
    session.run("insert into {s}.stage values (1, 1), (1, 2)")
    session.connection.commit()
    session.refused(
        "merge into {s}.t using {s}.stage on t.id = stage.id when matched then update set v = stage.v"
        " when not matched then insert values (stage.id, stage.v)"
    )


def test_writers_that_lock_first_queue_and_see_each_other(
    session: Session, connect: Callable[[], Session]
) -> None:
    """Two loaders of one table: the second waits for the lock and then reads what the first one wrote.

    Mutant: a snapshot taken before the lock makes the second read an empty ledger.
    """
    session.run("create table {s}.ledger (batch int)")
    session.connection.commit()
    session.run("lock {s}.ledger")
    seen: list[tuple[Any, ...]] = []
    second, locking = connect(), threading.Event()

    def load() -> None:
        second.run("select 1 where 1 = 0")
        second.connection.rollback()
        locking.set()
        second.run("lock {s}.ledger")
        seen.extend(second.run("select batch from {s}.ledger"))
        second.connection.commit()

    thread = threading.Thread(target=load)
    thread.start()
    assert locking.wait(20)
    session.run("insert into {s}.ledger values (1)")
    session.connection.commit()
    thread.join(20)
    assert seen == [(1,)]


def test_readers_are_not_stopped_by_a_writer(session: Session, connect: Callable[[], Session]) -> None:
    session.run("create table {s}.t (id bigint)")
    session.connection.commit()
    session.run("insert into {s}.t values (1)")
    assert connect().run("select count(*) from {s}.t") == [(0,)]
