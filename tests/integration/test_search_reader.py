from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import SinkUnavailableError
from pipeline.search import reader
from pipeline.search.reader import Document
from pipeline.search.scope import SearchScope
from tests.fakes.search import SearchPlace
from tests.fakes.turns import event, lane, row, turn, version

pytestmark = pytest.mark.integration


@pytest.fixture
def place(elasticsearch_url: str, index_prefix: str, tmp_path: Path) -> Iterator[SearchPlace]:
    made = SearchPlace(elasticsearch_url, index_prefix, tmp_path)
    yield made
    made.close()


def scanned(place: SearchPlace, merchant: str | None = None) -> list[Document]:
    return sorted(
        reader.scan(place.client, place.deployment, "payment", merchant),
        key=lambda one: (one.merchant, one.key),
    )


def test_a_scan_shows_rows_and_tombstones_of_every_merchant(place: SearchPlace) -> None:
    place.write(
        turn(
            lane(event(1, row(1)), event(2, row(2), op="d"), first_offset=7),
            lane(event(3, row(1), merchant="_gateway0")),
        )
    )
    assert scanned(place) == [
        Document("6", "1", version(1), False, row(1), 3, 7, "gateway0"),
        Document("6", "2", version(2), True, {"id": 2}, 3, 8, "gateway0"),
        Document("_gateway0", "1", version(3), False, row(1), 3, 0, "gateway0"),
    ]
    assert [one.merchant for one in scanned(place, "6")] == ["6", "6"]


def test_a_scan_goes_on_beyond_its_page(place: SearchPlace) -> None:
    # Mutant: stop after the first page.
    place.write(turn(lane(*(event(number, row(number)) for number in range(1, 4402)))))
    assert {one.key for one in scanned(place)} == {str(number) for number in range(1, 4402)}


def test_a_scan_leaves_nothing_open(place: SearchPlace) -> None:
    place.write(turn(lane(event(1, row(1)))))
    next(reader.scan(place.client, place.deployment, "payment"))
    stats = place.client.indices.stats(index=place.index(), metric="search")
    assert stats["_all"]["total"]["search"]["open_contexts"] == 0


def test_a_document_by_another_hand_is_shown_as_it_is(place: SearchPlace) -> None:
    place.client.index(index=place.index(), id="6:payment:9", routing="6", document=row(9))
    assert scanned(place) == [Document("6", "9", 0, False, row(9), -1, -1, "")]


def test_a_scan_of_what_is_not_there_is_an_error(place: SearchPlace) -> None:
    with pytest.raises(SinkUnavailableError, match="pipeline migrate"):
        next(reader.scan(place.client, place.deployment, "nothing"))


def test_a_scope_counts_the_living_rows_of_its_merchant_alone(place: SearchPlace) -> None:
    # Mutant: routing without the filter on cdc.merchant (all merchants share one shard here); no filter on deleted.
    place.write(
        turn(
            lane(event(1, row(1)), event(2, row(2)), event(3, row(3), op="d")),
            lane(event(4, row(4), merchant="7"), event(5, row(5, merchant_id="6"), merchant="7")),
            lane(event(6, row(6), type_="refund")),
        )
    )
    reader.refresh(place.client, place.deployment, ["payment", "refund"])
    counts = {
        (merchant, type_): SearchScope(place.client, place.deployment, merchant).count(type_)
        for merchant in ("6", "7", "8")
        for type_ in ("payment", "refund")
    }
    assert counts == {
        ("6", "payment"): 2, ("6", "refund"): 1,
        ("7", "payment"): 2, ("7", "refund"): 0,
        ("8", "payment"): 0, ("8", "refund"): 0,
    }  # fmt: skip


@pytest.mark.parametrize("merchant", ["", "*", "6,7", "6 OR 7", "6:", "_all/..", "__x", "a" * 65])
def test_there_is_no_scope_without_a_merchant(place: SearchPlace, merchant: str) -> None:
    with pytest.raises(ValueError, match="no merchant id"):
        SearchScope(place.client, place.deployment, merchant)
    with pytest.raises(ValueError, match="no merchant id"):
        next(reader.scan(place.client, place.deployment, "payment", merchant))
