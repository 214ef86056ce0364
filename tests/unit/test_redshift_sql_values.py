"""COPY's conversions by column type: what passes, as what, and the code of what does not."""

import decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.redshift.conversions import BadValue
from devstack.redshift.convert import Column, Converter, Options

NULL = "Nabc123"


def numeric(precision: int, scale: int) -> Column:
    return Column("n", "numeric", (precision << 16 | scale) + 4)


def varchar(size: int) -> Column:
    return Column("v", "varchar", size + 4, max_bytes=size)


def convert(column: Column, *values: str, roundec: bool = True, auto: bool = True) -> list[str]:
    return list(Converter(column, Options(NULL, roundec, auto)).convert(values))


def plain(kind: str) -> Column:
    return Column("c", kind)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (plain("int2"), "-32768", "-32768"),
        (plain("int8"), "9223372036854775807", "9223372036854775807"),
        (numeric(6, 2), "1.235", "1.24"),
        (numeric(6, 2), "-1.235", "-1.24"),
        (numeric(6, 2), "9999.99", "9999.99"),
        (numeric(2, 2), ".5", "0.50"),
        (numeric(38, 0), "9" * 38, "9" * 38),
        (plain("float8"), "1e300", "1e300"),
        (plain("float8"), "NaN", "NaN"),
        (plain("bool"), "TRUE", "t"),
        (plain("bool"), "0", "f"),
        (plain("date"), "2024-02-29", "2024-02-29"),
        (plain("time"), "23:59:59.999999", "23:59:59.999999"),
        (plain("timestamp"), "2024-01-31T00:00:00", "2024-01-31T00:00:00"),
        (plain("timestamptz"), "2000-02-29T00:00:00.123456+00:00", "2000-02-29T00:00:00.123456+00:00"),
        (plain("timestamptz"), "2024-01-01 00:00:00Z", "2024-01-01 00:00:00Z"),
        (varchar(6), "ééé", "ééé"),
        (varchar(9), "a\tb\\\n", "a\\tb\\\\\\n"),
        (varchar(9), "", ""),
        (plain("jsonb"), '{"a": "x\\n"}', '{"a": "x\\\\n"}'),
        (Column("b", "bytea", max_bytes=2), "00fF", "\\\\x00fF"),
        (plain("int4"), "", NULL),
        (plain("int4"), NULL, NULL),
        (varchar(1), NULL, NULL),
    ],
)
def test_accepted(column: Column, value: str, expected: str) -> None:
    assert convert(column, value) == [expected]


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        (plain("int2"), "32768", 1222),
        (plain("int8"), "9223372036854775808", 1222),
        (plain("int4"), "1.0", 1207),
        (plain("int4"), "1_000", 1207),
        (plain("int4"), "\u0661", 1207),
        (numeric(6, 2), "10000", 1204),
        (numeric(6, 2), "9999.995", 1204),
        (numeric(6, 2), "1E+3", 1207),
        (numeric(6, 2), "NaN", 1207),
        (plain("float8"), "1e400", 1208),
        (plain("float4"), "1e39", 1208),
        (plain("float8"), "x", 1208),
        (plain("bool"), "maybe", 1210),
        (plain("date"), "2023-02-29", 1205),
        (plain("date"), "1900-02-29", 1205),
        (plain("date"), "0000-01-01", 1205),
        (plain("date"), "2024-04-31", 1205),
        (plain("date"), "24-01-01", 1205),
        (plain("time"), "24:00:00", 1206),
        (plain("timestamp"), "2024-01-01 00:00:00+00", 1206),
        (plain("timestamptz"), "infinity", 1206),
        (plain("timestamptz"), "2024-01-01T00:00:00 BC", 1206),
        (varchar(5), "ééé", 1204),
        (varchar(5), "abcdef", 1204),
        (varchar(5), "a\udcff", 1220),
        (varchar(5), "a\0", 1220),
        (plain("jsonb"), "{", 1224),
        (plain("jsonb"), "NaN", 1224),
        (plain("jsonb"), '"' + "x" * 65_536 + '"', 1224),
        (Column("b", "bytea", max_bytes=2), "0", 1223),
        (Column("b", "bytea", max_bytes=2), "000000", 1204),
        (Column("k", "int8", not_null=True), NULL, 1213),
        (Column("k", "int8", not_null=True), "", 1213),
        (Column("k", "varchar", 9, not_null=True, max_bytes=5), NULL, 1213),
    ],
)
def test_refused(column: Column, value: str, code: int) -> None:
    with pytest.raises(BadValue) as refused:
        convert(column, value)
    assert refused.value.code == code


def test_without_roundec_decimals_are_cut_off() -> None:
    assert convert(numeric(6, 2), "1.239", "-1.239", roundec=False) == ["1.23", "-1.23"]


@pytest.mark.parametrize("value", ["2024-01-01T00:00:00", "2024-01-01 00:00:00Z", "2024-01-01"])
def test_without_timeformat_auto_only_one_form(value: str) -> None:
    with pytest.raises(BadValue):
        convert(plain("timestamptz"), value, auto=False)
    assert convert(plain("timestamptz"), "2024-01-01 00:00:00+02", auto=False)


def test_the_first_bad_value_is_named_by_its_place() -> None:
    with pytest.raises(BadValue) as refused:
        convert(plain("int4"), "1", NULL, "x", "y")
    assert refused.value.index == 2


def test_a_line_break_inside_a_value_does_not_pass_as_two() -> None:
    """Mutant: without counting line breaks "1\\n2" passes the pattern as two values and shifts a column."""
    with pytest.raises(BadValue):
        convert(plain("int4"), "1\n2")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), max_size=20))
def test_strings_survive_postgresql_copy_text(values: list[str]) -> None:
    for converted, value in zip(convert(varchar(200), *values), values, strict=True):
        assert not set("\n\t\r") & set(converted)
        assert (
            converted.replace("\\\\", "\0")
            .replace("\\n", "\n")
            .replace("\\t", "\t")
            .replace("\\r", "\r")
            .replace("\0", "\\")
            == value
        )


@given(st.decimals(-9999, 9999, allow_nan=False, allow_infinity=False))
def test_decimals_are_rounded_half_up(value: decimal.Decimal) -> None:
    text = format(value, "f")
    expected = value.quantize(decimal.Decimal("0.01"), rounding=decimal.ROUND_HALF_UP)
    (converted,) = convert(numeric(6, 2), text)
    assert decimal.Decimal(converted) == expected
