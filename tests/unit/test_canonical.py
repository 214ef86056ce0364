from typing import Any

import pytest

from pipeline.domain.canonical import Encoded, canonical, digest
from pipeline.domain.table import Column, Table

SAME: list[tuple[str, list[Any]]] = [
    ("boolean", [True, "t", "true"]),
    ("bigint", [9007199254740993, "9007199254740993"]),
    ("numeric(18,2)", ["12.50", "12.5", "12.500"]),
    ("numeric", ["0", "0.00", "-0"]),
    ("numeric", ["NaN"]),
    ("numeric", ["1" * 40 + ".50", "1" * 40 + ".5"]),
    ("text[]", [["a", None, "ü"], Encoded('["a", null, "\\u00fc"]')]),
    ("real", [0.1, "0.1", 0.10000000149011612]),
    ("double precision", [0.1, "0.1", "1e-1"]),
    (
        "timestamp with time zone",
        ["2026-11-22T18:00:00.5+00:00", "2026-11-22 18:00:00.500000+00", "2026-11-22 20:00:00.5+02"],
    ),
    ("timestamp without time zone", ["2026-11-22T18:00:00", "2026-11-22 18:00:00.000000"]),
    ("timestamp with time zone", ["infinity"]),
    ("time without time zone", ["12:30:00", "12:30:00.000000"]),
    ("jsonb", [{"a": 1, "b": [1.5, None]}, Encoded('{"b": [1.50, null], "a": 1}')]),
    ("jsonb", ["text", Encoded('"text"')]),
    ("bytea", ["\\x00FF", "00ff", b"\x00\xff"]),
    ("text", [""]),
    ("uuid", ["0b9a9b0e-0000-4000-8000-000000000001"]),
]


@pytest.mark.parametrize(("column_type", "values"), SAME)
def test_the_same_value_from_any_store_has_one_text(column_type: str, values: list[Any]) -> None:
    assert len({canonical(column_type, value) for value in values}) == 1


@pytest.mark.parametrize(
    ("column_type", "one", "two"),
    [
        ("text", "", None), ("numeric(18,2)", "0.10", "0.1000001"), ("jsonb", "1", 1), ("boolean", False, None),
        ("numeric", "1" * 40, "1" * 39 + "2"), ("text[]", ["a,b"], ["a", "b"]),
        ("timestamp with time zone", "2026-11-22T18:00:00.000001Z", "2026-11-22T18:00:00Z"), ("text", "a", "a "),
    ],
)  # fmt: skip
def test_different_values_have_different_texts(column_type: str, one: Any, two: Any) -> None:
    assert canonical(column_type, one) != canonical(column_type, two)


def test_a_digest_covers_key_and_every_column() -> None:
    table = Table(
        "gateway0", "public.t", "t", "merchant_id", ("id",), (Column("id", "bigint"), Column("note", "text"))
    )
    row = {"id": 1, "note": "x"}
    assert digest(table, "1", row) == digest(table, "1", {"id": "1", "note": "x", "unknown": 5})
    assert (
        len({digest(table, "1", row), digest(table, "2", row), digest(table, "1", row | {"note": None})}) == 3
    )
    assert digest(table, "1", row, without={"note"}) == digest(
        table, "1", row | {"note": "cut"}, without={"note"}
    )
