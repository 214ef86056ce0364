from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.verify.compare import Difference, SinkRow, SourceRow, compare, sums


def source(key: str, digest: int = 1) -> SourceRow:
    return SourceRow("6", key, digest, lambda flags: digest - len(flags))


def sink(key: str, digest: int = 1, changed: bool = False, deleted: bool = False) -> SinkRow:
    return SinkRow("6", key, changed, deleted, digest)


def test_each_finding_is_named() -> None:
    rows = [source(key) for key in ("equal", "missing", "buried", "other", "newer", "aside")]
    documents = [
        sink("equal"), sink("buried", deleted=True), sink("other", digest=2), sink("newer", digest=2, changed=True),
        sink("extra"), sink("gone", deleted=True), sink("created later", changed=True),
    ]  # fmt: skip
    differences, changed = compare(rows, documents, {("6", "aside")})
    assert differences == [
        Difference("different", "6", "other"),
        Difference("lost", "6", "buried"),
        Difference("lost", "6", "missing"),
        Difference("phantom", "6", "extra"),
        Difference("rejected", "6", "aside"),
    ]
    assert changed == 2


def test_a_column_that_the_sink_cannot_hold_and_says_so_is_not_compared() -> None:
    differences, _ = compare([source("1", 5)], [SinkRow("6", "1", False, False, 4, frozenset({"wide"}))], ())
    assert differences == []


def test_another_merchants_row_of_the_same_key_is_another_row() -> None:
    differences, _ = compare([source("1")], [SinkRow("7", "1", False, False, 1)], ())
    assert {(d.finding, d.merchant) for d in differences} == {("lost", "6"), ("phantom", "7")}


digests = st.lists(st.integers(0, 2**64 - 1), max_size=20)


@given(digests, st.randoms())
def test_checksums_do_not_depend_on_order(values: list[int], random: Random) -> None:
    rows = [source(str(index), value) for index, value in enumerate(values)]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert not sums(rows).differing(sums(shuffled))


@given(digests.filter(bool))
def test_one_changed_row_shortlists_its_merchant(values: list[int]) -> None:
    rows = [source(str(index), value) for index, value in enumerate(values)]
    changed = [*rows[:-1], source(rows[-1].key, rows[-1].digest ^ 1)]
    assert sums(rows).differing(sums(changed)) == {"6"}
    assert sums(rows).differing(sums(rows[:-1])) == {"6"}
