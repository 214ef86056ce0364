import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.routing import (
    Key,
    encode_key,
    is_merchant,
    is_snapshot_lane,
    lane_of,
    lane_queue,
    merchant_of_lane,
    partition_of,
)

values = st.one_of(st.integers(), st.text(), st.booleans())


@pytest.mark.parametrize("text", ["6", "m-1_a", "A" * 64, "_gateway0"])
def test_merchant_ids(text: str) -> None:
    assert is_merchant(text)


@pytest.mark.parametrize("text", ["", "-a", "_", "_A", "a b", "a/b", "a:b", "A" * 65, "6\n", "é", "*"])
def test_what_is_no_merchant_id(text: str) -> None:
    assert not is_merchant(text)


def test_the_partition_of_a_merchant_never_changes() -> None:
    assert [partition_of(merchant, 12) for merchant in ("6", "7", "1000", "_gateway0")] == [4, 6, 3, 9]


@given(st.lists(st.text(), min_size=2, max_size=2), st.lists(st.text(), min_size=2, max_size=2))
def test_different_keys_have_different_texts(one: list[str], two: list[str]) -> None:
    def key(texts: list[str]) -> Key:
        return {"a": texts[0], "b": texts[1]}

    assert (encode_key(key(one)) == encode_key(key(two))) == (one == two)


def test_a_plain_number_stays_readable() -> None:
    assert encode_key({"id": 123}) == "123"
    assert encode_key({"merchant_id": "6", "seq": 7}) == "6:7"


@pytest.mark.parametrize("merchant", ["6", "s", "s-1", "_gateway0"])
def test_a_merchants_two_lanes_never_meet(merchant: str) -> None:
    live, rows = lane_of(merchant, snapshot=False), lane_of(merchant, snapshot=True)
    assert (live, rows) == (merchant, f"s.{merchant}")
    assert not is_merchant(rows)
    assert (is_snapshot_lane(live), is_snapshot_lane(rows)) == (False, True)
    assert merchant_of_lane(live) == merchant_of_lane(rows) == merchant
    assert lane_queue("search", live) == f"search.m.{merchant}"
    assert lane_queue("search", rows) == f"search.s.{merchant}"
