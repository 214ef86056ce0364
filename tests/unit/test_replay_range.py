"""Places in a topic as people write them, and lines of a file."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import msgspec
import pytest

from pipeline.replay.lines import Lines, write
from pipeline.replay.range import Place, place
from pipeline.replay.rehearsal import change
from pipeline.replay.turns import Published, Told


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("beginning", None),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31T12:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("17", {None: 17}),
        ("3:17", {3: 17}),
        ("3:17,4:0", {3: 17, 4: 0}),
    ],
)
def test_places_as_people_write_them(text: str, meant: Place) -> None:
    assert place(text, edge="beginning") == meant


@pytest.mark.parametrize("text", ["end", "", "yesterday", "3:", "-1", "17,18", "3:17;4:0"])
def test_what_is_no_place_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        place(text, edge="beginning")


def test_a_file_is_read_as_it_was_written_and_lines_keep_their_numbers() -> None:
    values = [
        msgspec.json.encode(change(n, merchant, "payment", {"id": n})) for n, merchant in enumerate("aba")
    ]
    loose = msgspec.json.format(values[2], indent=2)
    file = io.BytesIO()
    for n, value in enumerate([*values[:2], loose]):
        write(file, Published("a", 0, n, value))
    file.write(b"\n{}\n")
    assert file.getvalue().count(b"\n") == 5
    source = Lines(file, frozenset(), ord)
    (window,) = source.windows()
    *found, strange = window
    assert found == [
        Published(m, ord(m), n, value) for n, (m, value) in enumerate(zip("aba", values, strict=True), 1)
    ]
    assert isinstance(strange, Told)
    assert (strange.what, strange.record.offset) == ("rejected", 5)
    assert (source.read, source.positions) == (source.total, {0: 6})
    file.seek(0)
    (only,) = Lines(file, frozenset("b"), lambda _: 0).windows()
    assert [one.offset for one in only if isinstance(one, Published)] == [2]
    assert len(only) == 1
