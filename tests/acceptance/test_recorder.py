"""The recording is what other tests judge by: a writer that is killed midway neither breaks nor forges a line."""

import json
from pathlib import Path

import pytest

from tests.acceptance.recorder import complete_lines, record
from tests.fakes.turns import event, lane, row, turn


@pytest.mark.parametrize("torn", [0, 1, 100, -1])
def test_a_line_that_was_never_finished_is_neither_read_nor_continued(
    torn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = tmp_path / "recording"
    monkeypatch.setenv("RECORDING", str(recording))
    record(turn(lane(event(1, row(1)), event(2, row(1)))))
    first, second = complete_lines(recording.read_bytes())
    recording.write_bytes(first + b"\n" + second[:torn])
    assert complete_lines(recording.read_bytes()) == [first]
    record(turn(lane(event(2, row(1)), first_offset=1)))
    assert [json.loads(line)["offset"] for line in complete_lines(recording.read_bytes())] == [0, 1]
