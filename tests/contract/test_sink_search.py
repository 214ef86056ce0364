"""The promises of a sink, kept by the one in memory and by Elasticsearch alike."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.consumer import SinkUnavailableError, Turn
from tests.fakes.search import SearchPlace
from tests.fakes.sink import MemorySink, Stored
from tests.fakes.turns import event, lane, outcomes, row, turn, version


@dataclass(frozen=True, slots=True)
class Subject:
    """A sink, what it has stored for a merchant, and a switch."""

    write: Callable[[Turn], object]
    stored: Callable[[str], Mapping[str, Stored]]
    available: Callable[[bool], None]


def _memory() -> Iterator[Subject]:
    sink = MemorySink()

    def stored(merchant: str) -> dict[str, Stored]:
        return {key: held for (owner, _, key), held in sink.rows.items() if owner == merchant}

    yield Subject(sink, stored, lambda on: setattr(sink, "available", on))


def _elasticsearch(request: pytest.FixtureRequest, directory: Path) -> Iterator[Subject]:
    url, prefix = request.getfixturevalue("elasticsearch_url"), request.getfixturevalue("index_prefix")
    place = SearchPlace(url, prefix, directory)

    yield Subject(place.write, place.stored, lambda on: place.block(not on))
    place.close()


@pytest.fixture(params=["memory", pytest.param("elasticsearch", marks=pytest.mark.integration)])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    yield from _memory() if request.param == "memory" else _elasticsearch(request, tmp_path)


def test_rows_are_stored_as_they_came_and_every_lane_is_done(subject: Subject) -> None:
    lanes = [
        lane(event(1, row(1)), event(2, row(2, note='a "b" \n ü'))),
        lane(event(3, row(1), merchant="7")),
    ]
    subject.write(turn(*lanes))
    assert outcomes(lanes) == [(2, None, 0), (1, None, 0)]
    assert subject.stored("6") == {
        "1": Stored(version(1), False, row(1)),
        "2": Stored(version(2), False, row(2, note='a "b" \n ü')),
    }
    assert list(subject.stored("7")) == ["1"]


def test_the_same_turn_again_changes_nothing_and_is_done(subject: Subject) -> None:
    subject.write(turn(lane(event(1, row(1)), event(2, row(2), op="d"))))
    before = subject.stored("6")
    again = lane(event(1, row(1)), event(2, row(2), op="d"))
    subject.write(turn(again))
    assert outcomes([again]) == [(2, None, 0)]
    assert subject.stored("6") == before


def test_an_older_event_never_replaces_a_newer_one(subject: Subject) -> None:
    # Mutant: bulk lines without "version" and "version_type".
    subject.write(turn(lane(event(2, row(1, note="new")))))
    late = lane(event(1, row(1, note="old")))
    subject.write(turn(late))
    assert outcomes([late]) == [(1, None, 0)]
    assert subject.stored("6")["1"].row["note"] == "new"


def test_a_delete_leaves_a_tombstone_that_nothing_older_revives(subject: Subject) -> None:
    subject.write(turn(lane(event(1, row(1)))))
    subject.write(turn(lane(event(3, row(1), op="d"))))
    subject.write(turn(lane(event(2, row(1)))))
    assert subject.stored("6") == {"1": Stored(version(3), True, {"id": 1})}


def test_a_row_comes_back_by_a_newer_event(subject: Subject) -> None:
    subject.write(turn(lane(event(1, row(1), op="d"))))
    subject.write(turn(lane(event(2, row(1)))))
    assert subject.stored("6") == {"1": Stored(version(2), False, row(1))}


def test_of_several_events_of_a_row_in_one_turn_the_newest_version_stays(subject: Subject) -> None:
    # Mutant: fold by position instead of version (a relay that was killed publishes 1 and 2 again behind 3).
    subject.write(turn(lane(*(event(number, row(1, note=str(number))) for number in (1, 2, 3, 1, 2)))))
    assert subject.stored("6") == {"1": Stored(version(3), False, row(1, note="3"))}


def test_a_bad_event_is_rejected_alone(subject: Subject) -> None:
    bad = lane(event(1, row(1)), event(2, row(2, quantity="secret words")), event(3, row(3)), first_offset=40)
    good = lane(event(4, row(4), merchant="7"))
    subject.write(turn(bad, good))
    assert outcomes([bad, good]) == [(3, None, 1), (1, None, 0)]
    [rejection] = bad.rejections
    assert (rejection.merchant, rejection.offset, rejection.payload) == ("6", 41, bad.payloads[1])
    assert "secret" not in rejection.reason
    assert list(subject.stored("6")) == ["1", "3"]
    assert list(subject.stored("7")) == ["4"]


def test_behind_a_rejected_event_the_row_keeps_its_newest_good_state(subject: Subject) -> None:
    # Mutant: do not send again after a rejection (the folded event 2 would be lost).
    numbers = lane(event(1, row(1)), event(2, row(1, note="good")), event(3, row(1, quantity="bad")))
    subject.write(turn(numbers))
    assert outcomes([numbers]) == [(3, None, 1)]
    assert subject.stored("6")["1"].row["note"] == "good"


def test_a_sink_that_does_not_accept_blames_no_lane_and_loses_nothing(subject: Subject) -> None:
    lanes = [lane(event(1, row(1)), event(2, row(2, quantity="bad"))), lane(event(2, row(1), merchant="7"))]
    subject.available(False)
    with pytest.raises(SinkUnavailableError):
        subject.write(turn(*lanes))
    assert outcomes(lanes) == [(None, None, 0)] * 2
    subject.available(True)
    subject.write(turn(*lanes))
    assert list(subject.stored("6")) == list(subject.stored("7")) == ["1"]
