"""The spliced envelope is exactly the one that consumers decode, and huge rows are cut the same way every time."""

import hashlib
import json
import string
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture import oversize
from pipeline.capture.envelope import Envelopes
from pipeline.capture.marks import Mark
from pipeline.capture.queue import Batch
from pipeline.capture.queue import Event as QueueEvent
from pipeline.capture.rows import SourceRow
from pipeline.domain.event import Cut, Event, decode
from pipeline.domain.table import Column, Table
from pipeline.domain.version import MAX_EV_ID, MAX_GENERATION, pack
from pipeline.errors import PermanentError

MERCHANTS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=64)
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=30)
IMAGES = st.dictionaries(st.text(min_size=1, max_size=10), VALUES, min_size=1, max_size=5)
KEYS = st.dictionaries(
    st.text(min_size=1, max_size=10), st.integers(0, 2**53) | st.text(max_size=9), min_size=1
)
NUMBERS = st.integers(0, 2**53)
NAME = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)


def table(name: str = "public.t", type_: str = "t") -> Table:
    return Table("shop", name, type_, "merchant_id", ("id",), (Column("id", "integer"),))


def batch(generation: int = 1, tick: int = 1) -> Batch:
    return Batch(1, tick, generation, "mark", "1:1:", 1, 1, [], [])


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def image(raw: msgspec.Raw) -> Any:
    return json.loads(bytes(raw))


@given(
    name=NAME,
    type_=NAME,
    merchant=MERCHANTS,
    key=KEYS,
    before=st.none() | IMAGES,
    after=IMAGES,
    numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    ev=st.integers(0, MAX_EV_ID),
    generation=st.integers(1, MAX_GENERATION),
    op=st.sampled_from(["c", "u", "u1", "d"]),
)
def test_a_change_decodes_to_what_went_in(
    name: str,
    type_: str,
    merchant: str,
    key: dict[str, int | str],
    before: dict[str, object] | None,
    after: dict[str, object],
    numbers: tuple[int, int, int, int],
    ev: int,
    generation: int,
    op: str,
) -> None:
    txid, tick, ts_ms, pub_ms = numbers
    new = None if op == "d" else after
    event = QueueEvent(
        ev,
        txid,
        op,
        compact(new) if new else None,
        name,
        compact(before) if before else None,
        merchant,
        compact(key),
        ts_ms,
    )
    value = Envelopes("shop", [table(name, type_)]).change(event, batch(generation, tick), pub_ms)
    assert value is not None
    got = decode(value, merchant)
    sub = 1 if op == "u1" else 0
    assert (got.op, got.src, got.table, got.type, got.key) == (op[0], "shop", name, type_, key)
    assert (got.merchant, got.version, got.gen, got.ev, got.sub) == (
        merchant,
        pack(generation, ev, 0, sub),
        generation,
        ev,
        sub,
    )
    assert (got.txid, got.tick, got.ts_ms, got.pub_ms) == (txid, tick, ts_ms, pub_ms)
    assert (got.schema, image(got.before), image(got.after)) == (table().shape, before, new)
    assert msgspec.json.decode(value, type=Event) == msgspec.json.decode(msgspec.json.encode(got), type=Event)


def test_a_snapshot_row_wins_against_the_event_of_its_number_only() -> None:
    row = SourceRow("6", '{"id":1}', '{"id":1,"v":"x"}')
    now = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    value = Envelopes("shop", [table()]).row("public.t", row, Mark(9, 77, 3), 5, now, now + 1)
    assert value is not None
    got = decode(value, "6")
    assert (got.op, got.version, got.gen, got.ev, got.txid, got.tick) == ("r", pack(3, 9, 1), 3, 9, 77, 5)
    assert (image(got.before), got.row()) == (None, {"id": 1, "v": "x"})


@pytest.mark.parametrize("op", ["c", "u", "u1"])
def test_a_row_without_image_is_no_event(op: str) -> None:
    event = QueueEvent(1, 1, op, None, "public.t", None, "6", '{"id":1}', 0)
    assert Envelopes("shop", [table()]).change(event, batch(), 0) is None


def test_an_unknown_table_stops_the_relay() -> None:
    event = QueueEvent(1, 1, "d", None, "public.u", None, "6", '{"id":1}', 0)
    with pytest.raises(PermanentError, match=r'"public\.u"'):
        Envelopes("shop", [table()]).change(event, batch(), 0)


def change(before: str | None, after: str | None) -> tuple[bytes, Event]:
    op = "d" if after is None else "u"
    event = QueueEvent(1, 1, op, after, "public.t", before, "6", '{"id":1}', 0)
    value = Envelopes("shop", [table()]).change(event, batch(), 0)
    assert value is not None
    return value, decode(value, "6")


def row(**columns: str | None) -> str:
    return compact({"id": 1, **columns})


def test_a_record_that_fits_is_left_alone() -> None:
    half = "é" * (oversize.LIMIT // 5)
    _, event = change(row(v=half), row(v=half))
    assert (image(event.before)["v"], image(event.after)["v"]) == (half, half)


def test_the_old_row_goes_first() -> None:
    # Mutant: without the cut the producer refuses the record, and the batch can never be finished.
    value, event = change(row(v="x" * 600_000), row(v="é" * 300_000, w="y"))
    assert len(value) <= oversize.LIMIT
    assert image(event.before) is None and image(event.after) == {"id": 1, "v": "é" * 300_000, "w": "y"}


def test_then_the_largest_columns_of_the_new_row() -> None:
    large = row(a="x" * 700_000, b="y" * 600_000, c="z" * 500_000, d="small")
    value, event = change(row(v="old"), large)
    assert len(value) <= oversize.LIMIT
    assert image(event.after) == {"id": 1, "a": None, "b": None, "c": "z" * 500_000, "d": "small"}
    described = {"a": b"x" * 700_000, "b": b"y" * 600_000}
    assert event.cut == {
        name: Cut(len(text), hashlib.sha256(text).hexdigest()) for name, text in described.items()
    }


def test_what_the_trigger_cut_stays_described() -> None:
    # Mutant: the relay's cuts in place of the trigger's.
    trigger = '{"blob":{"bytes":9000000,"sha256":"' + "0" * 64 + '"}}'
    large = row(blob=None, a="x" * 700_000, b="y" * 600_000)
    _, event = change(row(v="old"), f"{large}\x1e{trigger}")
    assert event.cut.keys() == {"blob", "a"}
    assert event.cut["blob"].bytes == 9_000_000


def test_many_columns_are_cut_until_their_descriptions_fit_too() -> None:
    # Mutant: the size counted without the descriptions; with them the record is beyond the limit again.
    large = row(**{f"column_{number:040}": "x" * 1500 for number in range(1500)})
    value, event = change(row(v="old"), large)
    assert len(value) <= oversize.LIMIT
    assert sum(text is None for text in image(event.after).values()) == len(event.cut)


def test_a_change_and_a_snapshot_of_one_row_are_cut_alike() -> None:
    # Mutant: cutting only what does not fit: then the old row beside it decides.
    large = row(a="x" * 1_040_000, b="y" * 200)
    _, live = change(row(v="old" * 10_000), large)
    source_row = SourceRow("6", '{"id":1}', large)
    value = Envelopes("shop", [table()]).row("public.t", source_row, Mark(1, 1, 1), 1, 0, 0)
    assert value is not None
    read = decode(value, "6")
    assert bytes(live.after) == bytes(read.after) and image(read.after)["b"] == "y" * 200
    assert live.cut == read.cut and live.cut.keys() == {"a"}


def test_a_huge_deleted_row_keeps_its_key() -> None:
    value, event = change(row(v="x" * 2_000_000), None)
    assert len(value) <= oversize.LIMIT and event.key == {"id": 1} and image(event.before) is None


def nesting() -> Table:
    return Table(
        "shop", "public.t", "t", "merchant_id", ("id",), (Column("id", "integer"), Column("v", "jsonb"), Column("w", "json"))
    )  # fmt: skip


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


DEEP = ('"]}\\"', oversize.DEEPEST + 1), ("x", 5000), ("[[[", 100_000)


@pytest.mark.parametrize(("text", "levels"), DEEP)
def test_values_too_deep_for_json_readers_are_cut_in_changes_and_snapshots_alike(
    text: str, levels: int
) -> None:
    # Mutant: without it decoding raises RecursionError: in the relay when the record is large, else in every bridge and
    # worker, at each restart again.
    shallow = compact(json.loads(deep(oversize.DEEPEST)))
    wide = compact([{"a": text}] * 200)
    after = f'{{"id":1,"v":{wide},"w":{deep(levels)},"x y":{compact(text)},"z":{shallow},"n":-1.5e3}}'
    envelopes = Envelopes("shop", [nesting()])
    event = QueueEvent(1, 1, "u", after, "public.t", f'{{"id":1,"v":{deep(levels)}}}', "6", '{"id":1}', 0)
    value = envelopes.change(event, batch(), 0)
    assert value is not None
    got = decode(value, "6")
    assert got.row() == {
        "id": 1, "v": json.loads(wide), "w": None, "x y": text, "z": json.loads(shallow), "n": -1500.0
    }  # fmt: skip
    assert got.cut == {"w": Cut(2 * levels, hashlib.sha256(deep(levels).encode()).hexdigest())}
    assert image(got.before) is None
    row = envelopes.row("public.t", SourceRow("6", '{"id":1}', after), Mark(1, 1, 1), 1, 0, 0)
    assert row is not None and bytes(decode(row, "6").after) == bytes(got.after)


def test_a_key_that_fits_no_record_is_left_out() -> None:
    # Mutant: the producer refuses the record, and the batch can never be finished.
    key = compact({"id": "\x01" * 150_000})
    envelopes = Envelopes("shop", [table()])
    for op, after in (("c", key), ("d", None)):
        event = QueueEvent(1, 1, op, after, "public.t", None if after else key, "6", key, 0)
        value = envelopes.change(event, batch(), 0)
        assert value is None if after else value is not None and len(value) <= oversize.LIMIT
    assert envelopes.row("public.t", SourceRow("6", key, key), Mark(1, 1, 1), 1, 0, 0) is None
