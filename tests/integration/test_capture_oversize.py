"""Values too large to travel: null with their size and hash, as a function of the row alone, and no write breaks."""

import hashlib

import msgspec
import pytest

from pipeline.capture import rows
from pipeline.capture.image import LARGEST, split
from pipeline.capture.session import session
from pipeline.domain.event import Cut
from pipeline.warehouse.rows import RowWriter, fold
from pipeline.warehouse.types import sink_table
from tests.fakes.turns import lane, turn
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

BIG = LARGEST + 1
# Column type, a value that is too large, its text.
LARGE = (
    ("text", f"repeat('x', {BIG})", b"x" * BIG),
    ("character varying", f"repeat('é', {LARGEST // 2 + 1})", "é".encode() * (LARGEST // 2 + 1)),
    ("bytea", f"decode(repeat('00ff', {BIG}), 'hex')", b"\x00\xff" * BIG),
    ("jsonb", f"to_jsonb(repeat('y', {BIG}))", b'"' + b"y" * BIG + b'"'),
    (
        "text[]",
        f"array_fill('abc'::text, array[{BIG // 4 + 1}])",
        b"{" + b",".join([b"abc"] * (BIG // 4 + 1)) + b"}",
    ),
)


def made(captured: Captured) -> None:
    columns = ", ".join(f"c{place} {kind}" for place, (kind, _, _) in enumerate(LARGE))
    captured.run(f"create table t (id integer primary key, merchant_id integer, note text, {columns})")
    captured.install(t="merchant_id")


def test_large_values_are_null_with_size_and_hash_in_changes_and_snapshots_alike(captured: Captured) -> None:
    # Mutant: without the guard each of these records is cut by the relay, or, at a gigabyte, fails in the trigger.
    made(captured)
    values = ", ".join(value for _, value, _ in LARGE)
    captured.run(
        f"insert into t values (1, 6, 'kept', {values})", "update t set note = 'more'", "delete from t"
    )
    wanted = {
        f"c{place}": Cut(len(text), hashlib.sha256(text).hexdigest())
        for place, (_, _, text) in enumerate(LARGE)
    }
    created, updated, deleted = captured.drain()
    for event, note in ((created, "kept"), (updated, "more"), (deleted, "more")):
        assert event.row() == {"id": 1, "merchant_id": 6, "note": note} | dict.fromkeys(wanted)
        assert event.cut == wanted
    captured.run(f"insert into t values (1, 6, 'kept', {values})")
    with session(captured.source.url) as connection:
        (row,) = rows.read_rows(connection, captured.tables[0])
    image, cut = split(row.image)
    assert image.encode() == bytes(created.after)
    assert cut is not None and msgspec.json.decode(cut, type=dict[str, Cut]) == wanted


def test_what_fits_is_whole_however_it_is_stored(captured: Captured) -> None:
    # Mutant: a guard by stored size alone depends on compression: the same value would be cut in one place only.
    captured.run("create table t (id integer primary key, merchant_id integer, v jsonb)")
    captured.install(t="merchant_id")
    captured.run(
        f"insert into t values (1, 6, to_jsonb(repeat('y', {LARGEST - 2}))), (2, 6, to_jsonb(repeat('y', {LARGEST})))",
        "alter table t alter v set storage external",
        f"insert into t values (3, 6, to_jsonb(repeat('y', {LARGEST - 2}))), (4, 6, to_jsonb(repeat('y', {LARGEST})))",
    )
    assert [bool(event.cut) for event in captured.drain()] == [False, True, False, True]


def test_more_large_columns_than_a_function_has_arguments(captured: Captured) -> None:
    columns = ", ".join(f"c{place} text" for place in range(210))
    captured.run(f"create table t (id integer primary key, merchant_id integer, {columns})")
    captured.install(t="merchant_id")
    captured.run(
        f"insert into t (id, merchant_id, c0, c100, c209) values (1, 6, 'x', repeat('x', {BIG}), repeat('x', {BIG}))",
        "insert into t (id, merchant_id, c1) values (2, 6, 'x')",
    )
    cut, whole = captured.drain()
    assert set(cut.cut) == {"c100", "c209"} and cut.row()["c0"] == "x"
    assert whole.cut == {}


def test_the_warehouse_flags_what_was_cut(captured: Captured) -> None:
    captured.run("create table t (id integer primary key, merchant_id integer, v text)")
    captured.install(t="merchant_id")
    captured.run(f"insert into t values (1, 6, repeat('x', {BIG})), (2, 6, 'x')")
    picks = fold(turn(lane(*captured.drain())))["t"]
    written = RowWriter(sink_table(captured.tables[0])).rows(picks)
    assert written is not None
    assert list(written.columns[-1]) == ["v", None]


def test_many_columns_that_are_large_together_are_cut_to_their_shares(captured: Captured) -> None:
    # Mutant: without it this image has 120 MB, a batch of such rows fills the relay's memory, and at a gigabyte it fails.
    columns = ", ".join(f"c{place} text" for place in range(400))
    captured.run(f"create table t (id integer primary key, merchant_id integer, note text, {columns})")
    captured.install(t="merchant_id")
    values = ", ".join(["repeat('x', 300000)"] * 400)
    captured.run(f"insert into t values (1, 6, 'kept', {values})", "update t set note = 'more'")
    created, updated = captured.drain()
    described = Cut(300_000, hashlib.sha256(b"x" * 300_000).hexdigest())
    assert updated.cut == created.cut == {f"c{place}": described for place in range(400)}
    assert updated.row()["note"] == "more"
    with session(captured.source.url) as connection:
        (row,) = rows.read_rows(connection, captured.tables[0])
    assert split(row.image)[0].encode() == bytes(updated.after)


def test_a_share_does_not_depend_on_how_a_value_is_stored(captured: Captured) -> None:
    # Mutant: "surely small" by the limit of one value: 15 kB of blanks are stored in 200 bytes, and would count as nothing.
    columns = ", ".join(f"c{place} jsonb" for place in range(200))
    captured.run(f"create table t (id integer primary key, merchant_id integer, {columns})")
    captured.install(t="merchant_id")
    values = ", ".join(["to_jsonb(repeat('x', 20000))"] * 200)
    captured.run(f"insert into t values (1, 6, {values})", "update t set merchant_id = 6")
    created, updated = captured.drain()
    assert len(created.cut) == 200 and bytes(created.after) == bytes(updated.after)


def test_a_table_of_1600_columns(captured: Captured) -> None:
    columns = ", ".join(f"c{place} text" for place in range(1590))
    captured.run(f"create table t (id integer primary key, merchant_id integer, {columns})")
    captured.install(t="merchant_id")
    captured.run("insert into t (id, merchant_id, c1589) values (1, 6, 'x')", "update t set c0 = 'y'")
    created, updated = captured.drain()
    assert len(created.row()) == 1592 and (updated.row()["c0"], updated.row()["c1589"]) == ("y", "x")
