"""What is staged can be read back exactly: hostile texts, NULLs beside empty strings, the marker itself."""

import io

import msgspec
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from devstack.redshift.csv_rows import chunks
from pipeline.domain.event import Event
from pipeline.domain.routing import encode_key
from pipeline.domain.table import Column, Table
from pipeline.warehouse.files import USUAL_MARKER, PartFile, part_file
from pipeline.warehouse.rows import Pick, RowWriter, fold, sink_key, source_key
from pipeline.warehouse.types import sink_table
from tests.integration.warehouse_deployment import turn

TEXT = Table(
    "shop", "public.t", "t", "m", ("id",), (Column("id", "text"), Column("a", "text"), Column("b", "text"))
)
HOSTILE = st.sampled_from(
    ["", '"', '""', ",", "\n", "\r", "\r\n", "\\", "\\N", "\t", USUAL_MARKER, " ", "é☃𝄞", "'", "NULL"]
)
TEXTS = st.lists(HOSTILE | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))).map(
    "".join
)
FIELDS = st.none() | TEXTS


def read(file: PartFile) -> list[list[str | None]]:
    """The file as COPY reads it: by a reader that knows nothing of ours but the marker."""
    content = zstandard.ZstdDecompressor().decompress(file.content)
    rows = [row for chunk in chunks(io.BytesIO(content)) for row in chunk.rows]
    return [[None if field == file.marker else field for field in row] for row in rows]


@given(st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1))
def test_fields_come_back(rows: list[tuple[str | None, ...]]) -> None:
    """Mutant: no check that the marker is absent from the data."""
    file = part_file(list(zip(*rows, strict=True)))
    assert file.rows == len(rows)
    assert read(file) == [list(row) for row in rows]


def test_the_marker_in_the_data_is_no_null() -> None:
    file = part_file([["a" + USUAL_MARKER, None], [USUAL_MARKER, "b"]])
    assert file.marker != USUAL_MARKER
    assert read(file) == [["a" + USUAL_MARKER, USUAL_MARKER], [None, "b"]]


def _event(merchant: str, key: str, version: int, deleted: bool, a: str | None) -> Event:
    row = msgspec.Raw(msgspec.json.encode({"id": key, "a": a, "b": None}))
    nothing = msgspec.Raw(b"null")
    return Event(
        e=1, op="d" if deleted else "u", src="shop", table="public.t", type="t", key={"id": key}, merchant=merchant,
        ver=str(version), gen=1, ev=version, sub=0, txid=1, tick=1, ts_ms=0, pub_ms=0, schema="x",
        before=row if deleted else nothing, after=nothing if deleted else row,
    )  # fmt: skip


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["1", "2"]), st.sampled_from(["x", "y", "x ", "x:%20", ""]), st.booleans(), FIELDS
    ),
    min_size=1,
).flatmap(lambda made: st.permutations([(number, *each) for number, each in enumerate(made, 1)]))


@given(EVENTS)
def test_the_newest_version_of_each_key_is_staged(made: list[tuple[int, str, str, bool, str | None]]) -> None:
    """Mutant: fold keeps the last event it meets instead of the newest."""
    model: dict[tuple[str, str], tuple[int, bool, str | None]] = {}
    for version, merchant, key, deleted, a in sorted(made):
        model[merchant, key] = (version, deleted, a)
    picks = fold(
        turn([_event(merchant, key, version, deleted, a) for version, merchant, key, deleted, a in made])
    )
    rows = RowWriter(sink_table(TEXT)).rows(picks["t"])
    assert rows is not None
    staged = {
        (merchant or "", id_ or ""): (int(version or 0), deleted == "t", a)
        for id_, a, _b, merchant, _key, _source, version, deleted, _flags in read(part_file(rows.columns))
    }
    assert staged == model
    assert (min(rows.versions), max(rows.versions)) == _bounds(model)


def _bounds(model: dict[tuple[str, str], tuple[int, bool, str | None]]) -> tuple[int, int]:
    versions = [version for version, _, _ in model.values()]
    return min(versions), max(versions)


@given(st.dictionaries(st.sampled_from(["a", "b"]), TEXTS, min_size=1))
def test_a_stored_key_can_be_read_back_and_never_ends_in_a_blank(key: dict[str, str]) -> None:
    """Redshift ignores trailing blanks when it compares. Mutant: the key is stored as it is."""
    stored = sink_key(dict(key))
    assert source_key(stored) == encode_key(dict(key))
    assert not stored.endswith(" ")


def test_a_delete_without_an_image_has_its_key() -> None:
    bare = msgspec.structs.replace(_event("1", "x", 1, True, "a"), before=msgspec.Raw(b"null"))
    lanes = turn([bare])
    rows = RowWriter(sink_table(TEXT)).rows([Pick(lanes.lanes[0], 0, bare, "x")])
    assert rows is not None
    assert read(part_file(rows.columns)) == [["x", None, None, "1", "x", "shop", "1", "t", None]]
