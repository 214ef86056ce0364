"""Types and values on their way into Redshift: exact, flagged or refused."""

import re
from typing import Any

import msgspec
import pytest

from pipeline.domain.table import Column, Table
from pipeline.errors import ConfigurationError
from pipeline.warehouse.types import sink_table, sink_type
from pipeline.warehouse.values import Settled, Unfit, codec


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("smallint", "SMALLINT"),
        ("integer", "INTEGER"),
        ("bigint", "BIGINT"),
        ("numeric(18,2)", "NUMERIC(18,2)"),
        ("numeric(38,37)", "NUMERIC(38,37)"),
        ("numeric(5,-2)", "NUMERIC(7,0)"),
        ("numeric(3,5)", "NUMERIC(5,5)"),
        ("numeric", "VARCHAR(1024)"),
        ("numeric(39,2)", "VARCHAR(1024)"),
        ("real", "REAL"),
        ("double precision", "DOUBLE PRECISION"),
        ("boolean", "BOOLEAN"),
        ("text", "VARCHAR(65535)"),
        ("character varying(20)", "VARCHAR(80)"),
        ("character varying(60000)", "VARCHAR(65535)"),
        ("character varying", "VARCHAR(65535)"),
        ("character(3)", "VARCHAR(12)"),
        ("uuid", "VARCHAR(36)"),
        ("date", "DATE"),
        ("timestamp without time zone", "TIMESTAMP"),
        ("timestamp(3) with time zone", "TIMESTAMPTZ"),
        ("time without time zone", "TIME"),
        ("time with time zone", "VARCHAR(65535)"),
        ("jsonb", "SUPER"),
        ("bytea", "VARBYTE(1024000)"),
        ("text[]", "VARCHAR(65535)"),
        ("numeric(18,2)[]", "VARCHAR(65535)"),
        ("inet", "VARCHAR(65535)"),
    ],
)
def test_each_type_has_its_counterpart(source: str, sink: str) -> None:
    assert sink_type(source).sql == sink


def settle(source: str, value: Any) -> Settled:
    """One value of a column of that type, as JSON carries it."""
    rules = codec(sink_type(source))
    wire = msgspec.json.decode(msgspec.json.encode(value), type=rules.wire)
    if not isinstance(wire, msgspec.Raw) and rules.plain([wire]):
        return Settled(wire)
    return rules.settle(wire)


@pytest.mark.parametrize(
    ("source", "value", "written"),
    [
        ("bigint", 9223372036854775807, 9223372036854775807),
        ("bigint", "-9223372036854775808", -9223372036854775808),
        ("numeric(18,2)", "-12.30", "-12.30"),
        ("numeric(2,2)", "0.25", "0.25"),
        ("numeric", "1" * 1024, "1" * 1024),
        ("numeric", "NaN", "NaN"),
        ("double precision", 0.1, 0.1),
        ("boolean", True, "t"),
        ("boolean", False, "f"),
        ("text", "", ""),
        ("text", "é" * 32767, "é" * 32767),
        ("bytea", "\\x00ff", "00ff"),
        ("date", "2024-02-29", "2024-02-29"),
        ("time without time zone", "23:59:59.999999", "23:59:59.999999"),
        ("timestamp with time zone", "9999-12-31T23:59:59.999999+00:00", "9999-12-31T23:59:59.999999+00:00"),
        ("jsonb", {"a": "\\u0000"}, '{"a":"\\\\u0000"}'),
        ("jsonb", None, None),
        ("inet", "127.0.0.1", "127.0.0.1"),
        ("text[]", ["a", None], '["a",null]'),
    ],
)
def test_what_redshift_can_hold_is_written_as_it_is(source: str, value: Any, written: Any) -> None:
    assert settle(source, value) == Settled(written, flagged=False)


@pytest.mark.parametrize(
    ("source", "value", "written"),
    [
        ("numeric(18,2)", "NaN", None),
        ("numeric", "1" * 1025, None),
        ("double precision", "Infinity", None),
        ("real", "NaN", None),
        ("date", "infinity", None),
        ("date", "0044-03-15 BC", None),
        ("timestamp with time zone", "-infinity", None),
        ("timestamp without time zone", "10000-01-01T00:00:00", None),
        ("time without time zone", "24:00:00", None),
        ("character varying(1)", "𝄞x", "𝄞"),
        ("character varying(1)", "ééé", "éé"),
        ("text", "a\0b", "ab"),
        ("text", "x" * 65534 + "é", "x" * 65534),
        ("json", {"a": "x" * 65536}, None),
        ("json", {"a": "\0"}, None),
    ],
)
def test_what_redshift_cannot_hold_is_flagged(source: str, value: Any, written: Any) -> None:
    """Mutant: the value is changed and not flagged."""
    assert settle(source, value) == Settled(written, flagged=True)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("smallint", 32768),
        ("integer", "12x"),
        ("numeric(18,2)", "1.234"),
        ("numeric(4,2)", "123.45"),
        ("numeric(18,2)", "1e3"),
        ("numeric", "twelve"),
        ("real", 1e39),
        ("double precision", "many"),
        ("bytea", "00ff"),
        ("date", "2023-02-29"),
        ("date", "2023-04-31"),
        ("timestamp with time zone", "2023-01-01T25:00:00+00:00"),
        ("timestamp with time zone", "yesterday"),
    ],
)
def test_what_contradicts_its_column_is_refused_without_its_value(source: str, value: Any) -> None:
    """Mutant: a decimal with more digits than its column is rounded by COPY."""
    with pytest.raises(Unfit) as caught:
        settle(source, value)
    assert str(value) not in str(caught.value)


@pytest.mark.parametrize(("source", "value"), [("numeric(18,2)", 12.3), ("bigint", True), ("text", 1)])
def test_a_json_value_of_another_kind_is_refused(source: str, value: Any) -> None:
    """Money never passes through a float."""
    with pytest.raises(msgspec.ValidationError):
        settle(source, value)


def _table(*names: str, type_: str = "t") -> Table:
    return Table("shop", "public.t", type_, "m", ("id",), tuple(Column(name, "text") for name in names))


def test_names_fold_to_lower_case_and_lose_what_needs_quoting() -> None:
    names = [
        column.name for column in sink_table(_table("Amount", "a b", "a-b", "Größe", "1st", "order")).columns
    ]
    assert names[0] == "amount" and names[-1] == "order"
    assert len(set(names)) == 6
    assert [name[:5] for name in names[1:5]] == ["c_a_b", "c_a_b", "c_gr_", "c_1st"]
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in names)


@pytest.mark.parametrize("table", [_table("a", "A"), _table("_version"), _table("a", type_="_x")])
def test_names_redshift_cannot_have_are_refused(table: Table) -> None:
    with pytest.raises(ConfigurationError):
        sink_table(table)
