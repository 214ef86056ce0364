"""What a change of a row becomes: image, key, merchant, operation."""

import json
from itertools import pairwise

import psycopg
import pytest

from pipeline.capture import rows
from pipeline.capture.queue import notices
from pipeline.capture.session import session
from pipeline.domain.event import Event
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

# Column type, SQL literal, the JSON value it must become.
VALUES = (
    ("boolean", "true", True),
    ("smallint", "-32768", -32768),
    ("integer", "2147483647", 2147483647),
    ("bigint", "9007199254740992", 9007199254740992),
    ("bigint", "-9007199254740992", -9007199254740992),
    ("bigint", "9007199254740993", "9007199254740993"),
    ("bigint", "-9223372036854775808", "-9223372036854775808"),
    ("numeric", "123456789012345678901234567890.123456789", "123456789012345678901234567890.123456789"),
    ("numeric(18,2)", "1.1", "1.10"),
    ("numeric", "'NaN'", "NaN"),
    ("real", "0.1", 0.1),
    ("real", "'-Infinity'", "-Infinity"),
    ("double precision", "0.1::float8 + 0.2::float8", 0.30000000000000004),
    ("double precision", "1e300", 1e300),
    ("double precision", "'NaN'", "NaN"),
    ("text", r"""E'a"b\\c\n\t\u0001 é 漢 😀'""", 'a"b\\c\n\t\x01 é 漢 😀'),
    ("text", "''", ""),
    ("character varying(20)", "'ab  '", "ab  "),
    ("character(5)", "'ab'", "ab"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("date", "'2026-02-28'", "2026-02-28"),
    ("date", "'infinity'", "infinity"),
    ("timestamp without time zone", "'2026-02-28 01:02:03.000004'", "2026-02-28T01:02:03.000004"),
    ("timestamp with time zone", "'2026-02-28 01:02:03+05:30'", "2026-02-27T19:32:03+00:00"),
    ("timestamp(3) with time zone", "'2026-02-28 01:02:03.1239Z'", "2026-02-28T01:02:03.124+00:00"),
    ("timestamp with time zone", "'-infinity'", "-infinity"),
    ("timestamp with time zone", "'0044-03-15 12:00:00+00 BC'", "0044-03-15T12:00:00+00:00 BC"),
    ("time without time zone", "'23:59:59.5'", "23:59:59.5"),
    ("json", """'{"b": 1,  "a": [1.50, null]}'""", {"b": 1, "a": [1.5, None]}),
    ("jsonb", """'{"b": "\\"x", "a": {}}'""", {"a": {}, "b": '"x'}),
    ("jsonb", "'null'", None),
    ("bytea", r"'\x00ff'", r"\x00ff"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
)


def made(captured: Captured, columns: str = "v integer") -> Captured:
    captured.run(f"create table t (id bigint primary key, merchant_id integer, {columns})")
    captured.install(t="merchant_id")
    return captured


def short(event: Event) -> tuple[object, ...]:
    """Operation, merchant, key, sub, and the value `v` before and after."""
    images = (json.loads(bytes(image)) for image in (event.before, event.after))
    return (event.op, event.merchant, event.key["id"], event.sub, *(i and i["v"] for i in images))


def test_every_type_becomes_its_json_in_trigger_and_snapshot_alike(captured: Captured) -> None:
    columns = ", ".join(f"c{place} {kind}" for place, (kind, _, _) in enumerate(VALUES))
    made(captured, columns)
    literals = ", ".join(f"{literal}" for _, literal, _ in VALUES)
    captured.run(f"insert into t values (1, 6, {literals})", "insert into t (id) values (2)")

    full, empty = captured.drain()

    row = full.row()
    assert [row[f"c{place}"] for place in range(len(VALUES))] == [wanted for _, _, wanted in VALUES]
    assert set(empty.row()) == set(row) and set(empty.row().values()) == {2, None}
    with session(captured.source.url) as connection:
        read = {r.key: r for r in rows.read_rows(connection, captured.tables[0])}
    for event in (full, empty):
        one = read[json.dumps(event.key, separators=(",", ":"))]
        assert (one.merchant, one.image.encode()) == (event.merchant, bytes(event.after))


def test_a_writers_settings_do_not_reach_the_image(captured: Captured) -> None:
    # Mutant: the generated function without its SET clauses writes 01/02/2026, other zones and rounded floats.
    made(captured, "at timestamptz, day date, f double precision, b bytea")
    with captured.writer() as writer:
        writer.execute(
            "set timezone = 'Asia/Kolkata'; set datestyle = 'SQL, DMY'; set extra_float_digits = -3"
        )
        writer.execute("set bytea_output = 'escape'; set search_path = pg_temp")
        writer.execute(
            r"insert into public.t values (1, 6, '2026-01-02 00:00+00', '2026-02-01', 0.30000000000000004, '\x00')"
        )
    (event,) = captured.drain()
    assert event.row() == {
        "id": 1,
        "merchant_id": 6,
        "at": "2026-01-02T00:00:00+00:00",
        "day": "2026-02-01",
        "f": 0.30000000000000004,
        "b": r"\x00",
    }


def test_every_way_to_write_a_row_is_captured(captured: Captured) -> None:
    # Mutants: triggers for fewer operations; the update of a key without its first half.
    captured.run("create table child (id integer primary key, merchant_id integer, parent bigint)")
    captured.run("create table t (id bigint primary key, merchant_id integer, v integer)")
    captured.run(
        "alter table child add foreign key (parent) references t on delete cascade on update cascade"
    )
    captured.install(t="merchant_id", child="merchant_id")
    captured.run(
        "insert into t values (1, 6, 1), (2, 6, 2)",
        "insert into t values (1, 6, 0) on conflict (id) do update set v = t.v + 10",
        "insert into t values (1, 6, 0) on conflict do nothing",
        "merge into t using (values (2, 20), (3, 30)) as new (id, v) on new.id = t.id"
        " when matched then update set v = new.v when not matched then insert values (new.id, 6, new.v)",
        "insert into child values (1, 6, 3)",
    )
    with captured.writer() as writer, writer.cursor() as cursor, cursor.copy("copy t from stdin") as copy:
        copy.write_row((4, 6, 40))
    captured.run("update t set id = 33 where id = 3", "delete from t where id = 33")

    events = captured.drain()

    assert [short(e) for e in events if e.table == "public.t"] == [
        ("c", "6", 1, 0, None, 1),
        ("c", "6", 2, 0, None, 2),
        ("u", "6", 1, 0, 1, 11),
        ("u", "6", 2, 0, 2, 20),
        ("c", "6", 3, 0, None, 30),
        ("c", "6", 4, 0, None, 40),
        ("d", "6", 3, 0, 30, None),
        ("u", "6", 33, 1, None, 30),
        ("d", "6", 33, 0, 30, None),
    ]
    assert [e.op for e in events if e.table == "public.child"] == ["c", "u", "d"]
    assert all(a.version < b.version for a, b in pairwise(events))


def test_only_what_commits_is_delivered_and_savepoints_are_part_of_it(captured: Captured) -> None:
    # Mutant: events under the id of their subtransaction, which no batch looks for.
    made(captured)
    with captured.writer() as writer:
        with writer.transaction():
            writer.execute("insert into t values (1, 6, 1)")
            with writer.transaction():
                writer.execute("insert into t values (2, 6, 2)")
            with pytest.raises(ZeroDivisionError), writer.transaction():
                writer.execute("insert into t values (3, 6, 3)")
                raise ZeroDivisionError
            writer.execute("update t set v = 4 where id = 1")
        with pytest.raises(ZeroDivisionError), writer.transaction():
            writer.execute("insert into t values (5, 6, 5)")
            raise ZeroDivisionError

    events = captured.drain()

    assert [short(e)[:3] for e in events] == [("c", "6", 1), ("c", "6", 2), ("u", "6", 1)]
    assert len({e.txid for e in events}) == 1


def test_a_moving_row_is_deleted_for_its_old_merchant_and_shown_whole_to_the_new_one(
    captured: Captured,
) -> None:
    # Mutant: an update without the first half leaves the row with its old merchant for ever.
    made(captured)
    captured.run("insert into t values (1, 5, 1)", "update t set merchant_id = 6, v = 2")
    _, gone, come = captured.drain()
    assert [short(gone), short(come)] == [("d", "5", 1, 0, 1, None), ("u", "6", 1, 1, None, 2)]
    assert gone.ev == come.ev and gone.version < come.version


def test_a_changed_key_is_a_delete_and_an_update(captured: Captured) -> None:
    # Mutant: an update alone leaves the row under its old key.
    made(captured)
    captured.run("insert into t values (1, 6, 1), (2, 6, 2)")
    with captured.writer() as writer, writer.transaction():  # two rows change places
        for old, new in ((1, 3), (2, 1), (3, 2)):
            writer.execute("update t set id = %s where id = %s", (new, old))
    state: dict[object, object] = {}
    for event in captured.drain():
        if event.op == "d":
            state.pop(event.key["id"])
        else:
            state[event.key["id"]] = event.row()["v"]
    assert state == {1: 2, 2: 1}


def test_composite_and_large_keys(captured: Captured) -> None:
    captured.run(
        'create table t ("Id" uuid, n bigint, "a""b" text, merchant_id text, flag boolean,'
        ' primary key (n, "a""b", "Id", flag))'
    )
    captured.install(t="merchant_id")
    captured.run(
        """insert into t values ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 9007199254740993, e'x"\\ny', 'm', false)"""
    )
    (event,) = captured.drain()
    assert event.key == {
        "n": "9007199254740993",
        'a"b': 'x"\ny',
        "Id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "flag": False,
    }
    assert list(event.key) == ["n", 'a"b', "Id", "flag"]


MERCHANTS = (
    ("integer", {"6": "6", "-6": "_shop", "null": "_shop"}),
    ("text", {"'A-b_9'": "A-b_9", "''": "_shop", "'_x'": "_shop", "e'6\\n'": "_shop", "'é'": "_shop"}),
    ("character varying(99)", {f"'{'x' * 64}'": "x" * 64, f"'{'x' * 65}'": "_shop", "null": "_shop"}),
    ("character(4)", {"'ab'": "ab"}),
    (
        "uuid",
        {"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "null": "_shop"},
    ),
)


def test_a_row_without_a_well_formed_merchant_belongs_to_the_source(captured: Captured) -> None:
    for place, (kind, _) in enumerate(MERCHANTS):
        captured.run(f"create table t{place} (id serial primary key, merchant_id {kind})")
    captured.install(**{f"t{place}": "merchant_id" for place in range(len(MERCHANTS))})
    for place, (_, values) in enumerate(MERCHANTS):
        captured.run(*(f"insert into t{place} (merchant_id) values ({value})" for value in values))
    wanted = [merchant for _, values in MERCHANTS for merchant in values.values()]
    assert [event.merchant for event in captured.drain()] == wanted


def test_a_row_whose_image_fails_breaks_no_statement_and_leaves_a_notice(captured: Captured) -> None:
    # Mutant: without the EXCEPTION block the application's UPDATE fails.
    made(captured, "v integer, w integer")
    captured.run("insert into t values (1, 6, 1, 1), (2, 6, 2, 2)", "alter table t drop column w")
    captured.run("update t set v = 10 where id = 1", "delete from t where id = 2")
    events = captured.drain()
    assert [(e.op, e.key["id"]) for e in events] == [("c", 1), ("c", 2), ("d", 2)]
    with session(captured.source.url) as connection:
        assert len(notices(connection)) == 2


def test_capturing_takes_no_transaction_id_per_row(captured: Captured) -> None:
    # Mutant: an INSERT inside the EXCEPTION block takes one subtransaction id per row.
    made(captured)
    with captured.writer() as writer, writer.transaction():
        first = _xid(writer)
        writer.execute("insert into t select g, 6, g from generate_series(1, 500) g")
        with writer.transaction():
            writer.execute("insert into t values (1000, 6, 1)")
            (assigned,) = writer.execute("select xmin::text::bigint from t where id = 1000").fetchone() or (
                0,
            )
    assert int(assigned) - first < 400


def test_keys_that_move_on_in_one_statement(captured: Captured) -> None:
    # Mutant: both halves with ev_ids of their own, the first ones of all rows before the second: the rows are gone.
    made(captured)
    captured.run(
        "insert into t select g, 6, g from generate_series(20, 1, -1) g",
        "update t set id = id + 1",
        "update t set id = -id",
    )
    newest = {}
    for event in sorted(captured.drain(), key=lambda event: event.version):
        newest[event.key["id"]] = event
    assert {key: event.row()["v"] for key, event in newest.items() if not event.deleted} == {
        -(number + 1): number for number in range(1, 21)
    }


HOSTILE = (
    "timezone = 'Asia/Kolkata'", "datestyle = 'SQL, DMY'", "extra_float_digits = -15", "bytea_output = 'escape'",
    "intervalstyle = 'sql_standard'", "search_path = pg_temp, public", "standard_conforming_strings = off",
    "escape_string_warning = off", "transform_null_equals = on", "array_nulls = off", "quote_all_identifiers = on",
    "xmlbinary = hex", "xmloption = content", "lc_monetary = 'C'", "row_security = off", "plan_cache_mode = force_custom_plan",
    "plpgsql.extra_errors = 'all'", "enable_indexscan = off", "enable_bitmapscan = off", "jit_above_cost = 0",
    "client_encoding = latin1", "default_transaction_isolation = serializable", "check_function_bodies = off",
    "synchronous_commit = off", "statement_timeout = '30s'", "gin_fuzzy_search_limit = 1", "backslash_quote = on",
)  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"capture": "statement"}])
def test_no_setting_of_a_session_reaches_image_or_statement(
    captured: Captured, options: dict[str, str]
) -> None:
    # Mutants: the generated functions without their SET clauses; a name with a backslash in a plain literal.
    columns = (
        '"back\\slash'
        's" text, at timestamptz, i interval, m money, b bytea, f double precision, a text[], x xml,'
        " n numeric, j jsonb"
    )
    captured.run(f"create table t (id bigint primary key, merchant_id integer, {columns})")
    captured.install_tables(t=options)
    values = (
        r"6, E'\\d''\n', '2026-01-02 00:00+00', '1 day 2 hours', 1.5::numeric::money, E'\\x00ff', 0.1::float8 + 0.2,"
        " array['a', null], '<a/>', 1.10, '{\"a\": [null]}'"
    )
    captured.run(f"insert into t values (1, {values})")
    with captured.writer() as writer:
        for setting in HOSTILE:
            writer.execute(f"set {setting}".encode())
        writer.execute("create temp table pgq (id integer); create temp table cdc (id integer)")
        for function in ("now", "row_to_json"):
            writer.execute(
                f"create function pg_temp.{function}() returns integer language sql as 'select 1/0'".encode()
            )
        writer.execute(f"insert into public.t values (2, {values})".encode())
        writer.execute("update public.t set id = 3 where id = 2")
        writer.execute("delete from public.t where id = 3")
    plain, inserted, gone, moved, deleted = captured.drain()
    wanted = plain.row()
    assert inserted.row() == wanted | {"id": 2} == gone.row()
    assert moved.row() == wanted | {"id": 3} == deleted.row()
    with session(captured.source.url) as connection:
        assert notices(connection) == []


def _xid(writer: psycopg.Connection[tuple[object, ...]]) -> int:
    row = writer.execute("select txid_current() % 4294967296").fetchone()
    assert row is not None
    return int(str(row[0]))
