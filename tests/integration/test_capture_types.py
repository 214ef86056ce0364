"""Every type a column can have: captured, alike in trigger and snapshot, equal in every store, and no write breaks."""

import json

import pytest

from pipeline.capture import rows
from pipeline.capture.session import session
from pipeline.domain.canonical import Encoded, canonical
from pipeline.search.mapping import mapping
from pipeline.warehouse.types import sink_table
from pipeline.warehouse.values import codec
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

PRELUDE = """
create type mood as enum ('sad', 'so-so');
create domain percentage as numeric(5, 2) check (value between 0 and 100);
create domain half as percentage;
create domain tags as text[];
create type pair as (a integer, b text);
create type "select" as enum ('from');
"""
# Type, literal, what it is in the image.
VALUES = (
    ("mood", "'so-so'", "so-so"),
    ("half", "12.5", "12.50"),
    ("tags", "'{a,\"b c\"}'", ["a", "b c"]),
    ("pair", "row(1, 'x\"')", '(1,"x""")'),
    ("pair", "row(null, null)", "(,)"),
    ('"select"', "'from'", "from"),
    ("text[]", "'{a,NULL,\"\"}'", ["a", None, ""]),
    ("bigint[]", "'{9007199254740993,1}'", ["9007199254740993", "1"]),
    ("numeric[]", "'{1.10,NaN}'", ["1.10", "NaN"]),
    ("integer[]", "'{{1,2},{3,4}}'", [["1", "2"], ["3", "4"]]),
    ("timestamptz[]", "'{2026-01-02 00:00+02}'", ["2026-01-01 22:00:00+00"]),
    ("json[]", """array['{"a": 1}']::json[]""", ['{"a": 1}']),
    ("mood[]", "'{sad,so-so}'", "{sad,so-so}"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("tstzrange", "'[2026-01-01 00:00+00,)'", '["2026-01-01 00:00:00+00",)'),
    ("int8multirange", "'{[1,3), [5,7)}'", "{[1,3),[5,7)}"),
    ("interval", "'1 year 2 days 03:04:05.6'", "P1Y2DT3H4M5.6S"),
    ("money", "'-1234.5'::numeric::money", "-1234.50"),
    ("numeric(1000)", "repeat('9', 1000)::numeric", "9" * 1000),
    ("numeric", "'-Infinity'", "-Infinity"),
    ("date", "'-infinity'", "-infinity"),
    ("timetz", "'12:00:00.5+02'", "12:00:00.5+02"),
    ("xml", "'<a b=\"1\"/>'", '<a b="1"/>'),
    ("bit varying(9)", "b'0101'", "0101"),
    ("point", "'(0.1,-2)'", "(0.1,-2)"),
    ("tsvector", "'fat cat'", "'cat' 'fat'"),
    ('"char"', "'x'", "x"),
    ("name", "'n'", "n"),
    ("regclass", "'pg_catalog.pg_class'", "pg_class"),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03"),
    ("cidr", "'10.0.0.0/8'", "10.0.0.0/8"),
    ("oid", "7", "7"),
    ("pg_lsn", "'16/B374D848'", "16/B374D848"),
)
NAMES = (
    '"select"',
    '"Groß ""e"',
    '"a b"',
    '"100%"',
    '"漢字"',
    '"user"',
    "order_",
    '"{x}"',
    '"back\\slash"',
    '"$1"',
)


def made(captured: Captured) -> None:
    columns = ", ".join(f"c{place} {kind}" for place, (kind, _, _) in enumerate(VALUES))
    captured.run(PRELUDE, f"create table t (id bigint primary key, merchant_id integer, {columns})")
    captured.install(t="merchant_id")
    literals = ", ".join(literal for _, literal, _ in VALUES)
    captured.run(f"insert into t values (1, 6, {literals})", "insert into t (id, merchant_id) values (2, 6)")


def test_every_type_of_ones_own_is_captured_in_trigger_and_snapshot_alike(captured: Captured) -> None:
    # Mutant: IS NULL instead of num_nulls makes the composite of NULLs NULL.
    made(captured)
    captured.run("update t set c0 = 'sad' where id = 1", "delete from t where id = 1")
    full, empty, changed, gone = captured.drain()

    row = full.row()
    assert [row[f"c{place}"] for place in range(len(VALUES))] == [wanted for _, _, wanted in VALUES]
    assert set(empty.row().values()) == {2, 6, None}
    assert changed.row() == row | {"c0": "sad"} == gone.row()
    with session(captured.source.url) as connection:
        (read,) = rows.read_rows(connection, captured.tables[0])
    assert read.image.encode() == bytes(empty.after)


def test_search_and_warehouse_hold_every_type_with_the_same_canonical_text(captured: Captured) -> None:
    made(captured)
    row = captured.drain()[0].row()
    (table,) = captured.tables
    mapping(table)
    for column, sink in zip(table.columns, sink_table(table).columns, strict=True):
        value = row[column.name]
        wire = json.dumps(value).encode() if isinstance(value, list) else value
        field, flagged = (
            codec(sink.type).settle(wire) if sink.type.kind != "other" else (json.dumps(value), False)
        )
        stored = Encoded(str(field)) if sink.source_type.endswith("[]") else field
        if sink.type.kind in ("text", "digits", "numeric", "integer") or sink.source_type.endswith("[]"):
            assert not flagged and canonical(column.type, stored) == canonical(column.type, value), column


def test_odd_names_generated_and_identity_columns(captured: Captured) -> None:
    # Mutant: names pasted into the SQL unquoted, or into a query with parameters, break on these.
    columns = ", ".join(f"{name} text" for name in NAMES)
    captured.run(
        f'create table "Orders; drop" ("primary" integer generated always as identity, "merchant_id" text,'
        f' double integer generated always as ("primary" * 2) stored, {columns}, primary key ("primary", "100%"))'
    )
    captured.install_source(captured.choose({"Orders; drop": {"type": "orders"}}))
    captured.run(
        f'insert into "Orders; drop" (merchant_id, {", ".join(NAMES)})'
        f" values ('6', {', '.join(repr(str(place)) for place in range(len(NAMES)))})"
    )
    (event,) = captured.drain()
    plain = [name.strip('"').replace('""', '"') for name in NAMES]
    wanted = {name: str(place) for place, name in enumerate(plain)}
    assert event.row() == {"primary": 1, "merchant_id": "6", "double": 2} | wanted
    assert event.key == {"primary": 1, "100%": "3"}
    with session(captured.source.url) as connection:
        first = rows.read_chunk(connection, captured.tables[0], None)
        assert [row.image.encode() for row in first.rows] == [bytes(event.after)]
        assert rows.read_chunk(connection, captured.tables[0], first.position).rows == []
    assert len({column.name for column in sink_table(captured.tables[0]).columns}) == len(event.row())


KEYS = (
    ("mood", "'so-so'", "'sad'", "so-so"),
    ("half", "2.5", "1", "2.50"),
    ("timestamptz", "'2026-01-02 00:00+00'", "'2026-01-01 00:00+00'", "2026-01-02 00:00:00+00"),
    ("date", "'2026-01-02'", "'2026-01-01'", "2026-01-02"),
    ("character(4)", "'b'", "'a'", "b"),
    ("int4range", "'[2,3)'", "'[1,2)'", "[2,3)"),
    ("integer[]", "'{2}'", "'{1}'", "{2}"),
    ("bytea", r"'\x02'", r"'\x01'", r"\x02"),
)


def test_every_type_can_be_a_key_and_is_read_in_chunks(captured: Captured) -> None:
    captured.run(PRELUDE)
    for place, (kind, _, earlier, _) in enumerate(KEYS):
        captured.run(f"create table t{place} (k {kind} primary key, merchant_id integer)")
        captured.run(f"insert into t{place} values ({earlier}, 6)")
    captured.install(**{f"t{place}": "merchant_id" for place in range(len(KEYS))})
    for place, (_, later, _, _) in enumerate(KEYS):
        captured.run(f"insert into t{place} values ({later}, 6)")
    events = captured.drain()
    assert [event.key["k"] for event in events] == [text for _, _, _, text in KEYS]
    with session(captured.source.url) as connection:
        for table, event in zip(captured.tables, events, strict=True):
            both = rows.read_chunk(connection, table, None)
            assert [json.loads(row.key) for row in both.rows][1] == event.key
            assert rows.read_chunk(connection, table, both.position).rows == []


def test_an_applications_own_casts_never_run_with_our_rights(captured: Captured) -> None:
    # Mutant: value::text calls the cast, as the owner of the trigger's function.
    captured.run(
        "create type mood as enum ('sad')",
        "create table seen (who text)",
        "create function steal(mood) returns text language plpgsql as"
        " $$ begin insert into public.seen values (current_user); return 'stolen'; end $$",
        "create cast (mood as text) with function steal(mood)",
        "create table t (id mood primary key, merchant_id mood, v mood, w mood)",
    )
    captured.install_tables(t={"columns": {"w": "hash"}})
    captured.run("insert into t values ('sad', 'sad', 'sad', 'sad')")
    (event,) = captured.drain()
    assert (event.merchant, event.key, event.row()["v"]) == ("sad", {"id": "sad"}, "sad")
    with session(captured.source.url) as connection:
        assert rows.read_chunk(connection, captured.tables[0], None).rows[0].merchant == "sad"
        assert connection.execute("select * from public.seen").fetchall() == []
