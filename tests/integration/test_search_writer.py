from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from devstack.process import wait_until
from pipeline.consumer import SinkUnavailableError
from pipeline.search import reader
from pipeline.search.client import connect
from pipeline.search.naming import write_alias
from pipeline.search.refresh import RedisGate, Refresher
from pipeline.search.scope import SearchScope
from pipeline.search.writer import Writer, Written, open_writer
from tests.fakes.search import OpenGate, SearchPlace, settings_for
from tests.fakes.turns import event, lane, outcomes, row, turn, version

pytestmark = pytest.mark.integration


@pytest.fixture
def place(elasticsearch_url: str, index_prefix: str, tmp_path: Path) -> Iterator[SearchPlace]:
    made = SearchPlace(elasticsearch_url, index_prefix, tmp_path)
    yield made
    made.close()


def searchable(client: Elasticsearch, alias: str) -> int:
    count: int = client.count(index=alias)["count"]
    return count


def test_a_turn_says_what_became_of_its_documents(place: SearchPlace) -> None:
    first = turn(lane(event(1, row(1)), event(2, row(1)), event(3, row(2, quantity="bad")), event(4, row(3))))
    assert place.write(first) == Written(applied=2, stale=0, rejected=1)
    assert place.write(turn(lane(event(1, row(1)), event(5, row(3))))) == Written(1, 1, 0)


def test_a_tombstone_outlives_flush_and_reopening(place: SearchPlace) -> None:
    # Mutant: deletes as real deletes. Elasticsearch forgets the version of a deleted document when an index is
    # flushed and opened again, and after index.gc_deletes anyway.
    place.client.indices.put_settings(index=place.index(), settings={"gc_deletes": "0s"})
    place.write(turn(lane(event(1, row(1)))))
    place.write(turn(lane(event(3, row(1), op="d"))))
    place.client.indices.flush(index=place.index(), force=True)
    place.client.indices.close(index=place.index())
    place.client.indices.open(index=place.index(), wait_for_active_shards="1")
    late = turn(lane(event(2, row(1))))
    assert place.write(late) == Written(applied=0, stale=1, rejected=0)
    assert place.stored("6")["1"].deleted
    assert SearchScope(place.client, place.deployment, "6").count("payment") == 0


def test_a_turn_larger_than_a_request_is_written_whole(place: SearchPlace) -> None:
    large = lane(*(event(number, row(number)) for number in range(1, 2502)))
    assert place.write(turn(large)) == Written(2501, 0, 0)
    assert len(place.stored("6")) == 2501


def test_line_breaks_in_an_image_leave_other_merchants_alone(place: SearchPlace) -> None:
    # Mutant: splice the image without looking for line breaks.
    image = b'{"id":1,\n"merchant_id":"6"}'
    place.write(turn(lane(event(1, image)), lane(event(2, row(2), merchant="7"))))
    assert place.stored("6")["1"].row == {"id": 1, "merchant_id": "6"}
    assert place.stored("7")["2"].row == row(2)


@pytest.mark.parametrize("key", ["a:b", "a%3Ab", "%", 'q"\\\n', "ü" * 400, "x" * 3000, "*", "../_all", ""])
def test_hostile_keys_are_rows_like_any_other(place: SearchPlace, key: str) -> None:
    place.write(turn(lane(event(1, row(1, token=key), key={"token": key}), event(2, row(2)))))
    place.write(turn(lane(event(3, row(1), key={"token": key}, op="d"))))
    stored = list(place.stored("6").values())
    assert sorted((one.version, one.deleted) for one in stored) == [(version(2), False), (version(3), True)]


def test_values_that_no_field_can_hold_are_stored_exactly(place: SearchPlace) -> None:
    odd = row(
        1, amount="NaN", ratio="Infinity", created_at="infinity", day="0044-03-15 BC", note="x" * 40_000
    )
    odd |= {"extra": {"a": [1, {"b": None}], "": 2}, "token": None}
    also = row(2, created_at="2026-01-01T00:00:00.123456+00:00", amount="9" * 400, extra=[1.5, "x"])
    assert place.write(turn(lane(event(1, odd), event(2, also)))) == Written(2, 0, 0)
    stored = place.stored("6")
    assert (stored["1"].row, stored["2"].row) == (odd, also)


@pytest.mark.parametrize("outage", ["blocked", "closed", "missing", "no write alias"])
def test_an_index_that_takes_no_writes_blames_nobody(place: SearchPlace, outage: str) -> None:
    alias, index = write_alias(place.deployment, "refund"), place.index("refund")
    if outage == "blocked":
        place.block(True, "refund")
    elif outage == "closed":
        place.client.indices.close(index=index)
    elif outage == "missing":
        place.client.indices.delete(index=index)
    else:
        place.client.indices.put_alias(index=index, name=alias, is_write_index=False)
    lanes = [lane(event(1, row(1, quantity="bad")), event(2, row(2))), lane(event(3, row(3), type_="refund"))]
    with pytest.raises(SinkUnavailableError):
        place.write(turn(*lanes))
    assert outcomes(lanes) == [(None, None, 0)] * 2
    assert not place.client.indices.exists(index=alias) or outage != "missing"


def test_an_address_where_nobody_answers_is_an_unavailable_sink(index_prefix: str) -> None:
    client = connect("http://127.0.0.1:9")
    writer = Writer(client, index_prefix, Refresher(lambda _: None, OpenGate(), 1))
    with pytest.raises(SinkUnavailableError, match="no answer"):
        writer.write(turn(lane(event(1, row(1)))))
    writer.close()


def test_what_is_written_becomes_searchable_without_a_refresh_interval(place: SearchPlace) -> None:
    # Mutant: no request after the bulk.
    alias = write_alias(place.deployment, "payment")
    place.client.indices.put_settings(index=place.index(), settings={"refresh_interval": "-1"})
    place.write(turn(lane(event(1, row(1)))))
    assert wait_until(lambda: searchable(place.client, alias) == 1, 10)
    place.write(turn(lane(event(2, row(2)))))
    assert wait_until(lambda: searchable(place.client, alias) == 2, 10)


def test_stale_documents_are_refreshed_too(place: SearchPlace) -> None:
    # A worker that died between its bulk and its refresh leaves them to whoever gets the turn next.
    # Mutant: ask for a refresh of applied documents only.
    alias = write_alias(place.deployment, "payment")
    place.client.indices.put_settings(index=place.index(), settings={"refresh_interval": "-1"})
    dying = Writer(place.client, place.deployment, Refresher(lambda _: None, OpenGate(), 1))
    dying.write(turn(lane(event(1, row(1)))))
    assert searchable(place.client, alias) == 0
    assert place.write(turn(lane(event(1, row(1))))) == Written(0, 1, 0)
    assert wait_until(lambda: searchable(place.client, alias) == 1, 10)


def test_without_any_worker_elasticsearch_refreshes_by_itself(place: SearchPlace) -> None:
    # Mutant: refresh_interval -1 in the index.
    dying = Writer(place.client, place.deployment, Refresher(lambda _: None, OpenGate(), 1))
    dying.write(turn(lane(event(1, row(1)))))
    assert wait_until(lambda: searchable(place.client, write_alias(place.deployment, "payment")) == 1, 30)


def test_workers_share_the_pace_of_each_index(redis_url: str, redis_namespace: str) -> None:
    # Mutant: SET without NX.
    one, other = (RedisGate.connect(redis_url, redis_namespace.rstrip(":")) for _ in range(2))
    assert one.enter(["a"], 60) == {"a": 0}
    waits = other.enter(["a", "b"], 60)
    assert 0 < waits["a"] <= 60
    assert waits["b"] == 0


def test_without_redis_every_worker_keeps_the_pace_by_itself() -> None:
    assert RedisGate.connect("redis://127.0.0.1:9/0", "payments").enter(["a"], 60) == {"a": 0}


def test_a_writer_as_the_settings_say(
    elasticsearch_url: str, redis_url: str, redis_namespace: str, place: SearchPlace, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, place.deployment, elasticsearch_url, REDIS_URL=redis_url)
    writer = open_writer(settings)
    assert writer.write(turn(lane(event(1, row(1))))) == Written(1, 0, 0)
    writer.close()
    assert [one.key for one in reader.scan(place.client, place.deployment, "payment")] == ["1"]
