import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.domain.routing import KeyValue, encode_key, is_merchant
from pipeline.search.naming import document_id, key_of_id, read_alias, require_merchant, write_alias

MERCHANTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}|_[a-z][a-z0-9_]{0,62}", fullmatch=True)
TYPES = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
HOSTILE = st.text(alphabet=":%#25A" + string.ascii_lowercase[:3] + "ü\n", max_size=8)
PARTS = HOSTILE | st.integers(-3, 300) | HOSTILE.map(lambda text: text * 70)
KEYS = st.lists(PARTS, min_size=1, max_size=3)


def key_of(values: list[KeyValue]) -> str:
    return encode_key({f"c{number}": value for number, value in enumerate(values)})


@settings(deadline=None)
@given(MERCHANTS, TYPES, KEYS, MERCHANTS, TYPES, KEYS)
@example("6", "a", ["x" * 600], "6", "a", ["x" * 601])
@example("6", "a", ["x", "y"], "6", "a", ["x:y"])
def test_different_rows_have_different_documents(
    merchant: str,
    type_: str,
    values: list[KeyValue],
    other_merchant: str,
    other_type: str,
    other_values: list[KeyValue],
) -> None:
    # Mutant: cut long ids off instead of hashing them; leave `:` in keys as it is.
    mine, other = (merchant, type_, key_of(values)), (other_merchant, other_type, key_of(other_values))
    assert (document_id(*mine) == document_id(*other)) == (mine == other)
    assert len(document_id(*mine).encode()) <= 512


@settings(deadline=None)
@given(MERCHANTS, TYPES, KEYS)
def test_a_key_that_looks_like_a_hash_is_no_hash(merchant: str, type_: str, values: list[KeyValue]) -> None:
    long = document_id(merchant, type_, key_of([*values, "x" * 600]))
    lookalike = long.split(":", 2)[2].split(":")
    assert document_id(merchant, type_, key_of(list(lookalike))) != long


@settings(deadline=None)
@given(MERCHANTS, TYPES, st.lists(HOSTILE, min_size=1, max_size=3))
def test_the_key_can_be_read_back_from_an_id(merchant: str, type_: str, values: list[KeyValue]) -> None:
    key = key_of(values)
    assert key_of_id(document_id(merchant, type_, key)) == key


@settings(deadline=None)
@given(st.text(max_size=70))
def test_what_is_no_merchant_id_gets_no_handle(text: str) -> None:
    if is_merchant(text):
        assert require_merchant(text) == text
    else:
        with pytest.raises(ValueError, match="no merchant id"):
            require_merchant(text)


@pytest.mark.parametrize("name", ["", "*", "a,b", "a*", "A", "a-b", "-a", "a/b", "_all", "a" * 32])
def test_a_name_that_reaches_other_indices_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        read_alias("payments", name)
    with pytest.raises(ValueError, match="no name"):
        write_alias(name, "payment")
