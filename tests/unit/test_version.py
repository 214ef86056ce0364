import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.version import EVENT, MAX_EV_ID, MAX_GENERATION, SNAPSHOT, pack, unpack

parts = st.tuples(
    st.integers(1, MAX_GENERATION),
    st.integers(0, MAX_EV_ID),
    st.sampled_from([EVENT, SNAPSHOT]),
    st.integers(0, 3),
)


@given(parts)
def test_a_version_gives_back_its_parts(numbers: tuple[int, int, int, int]) -> None:
    version = pack(*numbers)
    assert unpack(version) == numbers
    assert 0 < version < 2**63


@given(parts, parts)
def test_versions_are_ordered_as_their_parts_are(
    one: tuple[int, int, int, int], two: tuple[int, int, int, int]
) -> None:
    assert (pack(*one) < pack(*two)) == (one < two)


@pytest.mark.parametrize(
    "numbers",
    [(0, 1, 0, 0), (MAX_GENERATION + 1, 1, 0, 0), (1, MAX_EV_ID + 1, 0, 0), (1, 1, 2, 0), (1, 1, 0, 4)],
)
def test_what_does_not_fit_is_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="no version has"):
        pack(*numbers)
