"""When a sink has accepted everything: committed offsets speak for all but detached lanes."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from pipeline import settings as configuration
from pipeline.bridge import progress
from pipeline.bridge.bookkeeping import Bookkeeping
from pipeline.bridge.group_view import GroupView
from pipeline.bridge.start import ensure_started, group_of
from pipeline.bridge.topics import Topics
from pipeline.capture.topics import ensure_topics, topics_of
from pipeline.control import requests, tables
from pipeline.control.database import ControlDatabase, migrate
from pipeline.domain.routing import partition_of
from pipeline.errors import PositionLostError
from pipeline.ports import Detachment, State
from pipeline.settings import Settings
from pipeline.verify.run import NotSettledError, Verification
from tests.conftest import delete_groups, unique
from tests.fakes.search import TABLES
from tests.integration.test_sweeps_verify import TOML

pytestmark = pytest.mark.integration

MERCHANT, OTHER = "6", "7"
HOME = partition_of(MERCHANT, 2)
RECORDS = 6
AGES = [600, 500, 400, 300, 200, 100]  # seconds, of the records in the merchant's partition


@pytest.fixture
def settings(
    control_url: str, kafka_bootstrap: str, kafka_admin: KafkaAdminClient, tmp_path: Path
) -> Iterator[Settings]:
    """A deployment with six records in the merchant's partition of changes; its consumer has committed all of them."""
    (tmp_path / "pipeline.toml").write_text(TOML.format(name=unique()))
    environ = {
        "CONTROL_DATABASE_URL": control_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "GATEWAY0_DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "ELASTICSEARCH_URL": "http://127.0.0.1:1",
        "REDSHIFT_URL": "redshift://127.0.0.1:1/none",
        "S3_BUCKET": "none",
    }
    made = configuration.load(environ, tmp_path)
    ensure_topics(kafka_bootstrap, made.configuration.deployment)
    with closing(KafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all")) as producer:
        for age in AGES:
            at = round((time.time() - age) * 1000)
            sent = producer.send(made.datastream.topic, b"{}", b"6", partition=HOME, timestamp_ms=at)
            sent.get(10)
    commit(made, RECORDS)
    yield made
    delete_groups(kafka_admin, group_of(made, "search"))
    kafka_admin.delete_topics([topic.topic for topic in topics_of(made.configuration.deployment)])


@pytest.fixture
def database(control_url: str) -> Iterator[ControlDatabase]:
    made = ControlDatabase(control_url)
    migrate(made)
    tables.store(made, "gateway0", list(TABLES))
    yield made
    made.close()


@pytest.fixture
def books(settings: Settings, database: ControlDatabase) -> Bookkeeping:
    return Bookkeeping(database, "search", Topics.of(settings, "search"))


def commit(settings: Settings, offset: int) -> None:
    """The consumer has committed up to there in the merchant's partition, and all of the others."""
    topics = Topics.of(settings, "search")
    group = group_of(settings, "search")
    with closing(GroupView(settings.environment.kafka_bootstrap_servers, topics, group)) as view:
        view.commit({**dict.fromkeys(topics.numbers, 0), HOME: offset})


def detach(
    books: Bookkeeping, lane: str, first: int, state: State = "running", until: int | None = None
) -> None:
    fence = books.take_over([HOME])[HOME].tenure.fence
    books.detach(HOME, fence, [Detachment(lane, first, state, "so")])
    if until is not None:
        books.hand_over(HOME, fence, {lane: until})


def accepted(settings: Settings) -> bool:
    return progress.accepted(settings, "search", progress.end_offsets(settings, "search"))


@pytest.mark.parametrize(
    ("first", "until", "all_accepted"),
    [
        (0, None, False),
        (RECORDS - 1, None, False),
        (RECORDS, None, True),
        (2, 4, False),
        (4, 4, True),
        (4, 9, False),
    ],
)
def test_what_a_detached_lane_has_left_is_not_accepted(
    settings: Settings, books: Bookkeeping, first: int, until: int | None, all_accepted: bool
) -> None:
    # Mutants: committed offsets are enough; `until` is not looked at; whatever is detached counts.
    assert accepted(settings)
    detach(books, MERCHANT, first, until=until)
    assert accepted(settings) is all_accepted


def test_detached_lanes_do_not_speak_for_the_others(settings: Settings, books: Bookkeeping) -> None:
    # Mutant: detached lanes are enough.
    commit(settings, RECORDS - 1)
    assert not accepted(settings)
    detach(books, MERCHANT, RECORDS)
    assert not accepted(settings)


def test_a_consumer_s_lanes_are_its_own(settings: Settings, database: ControlDatabase) -> None:
    detach(Bookkeeping(database, "warehouse", Topics.of(settings, "search")), MERCHANT, 0)
    assert accepted(settings)


def test_a_hindrance_says_what_it_is(
    settings: Settings, database: ControlDatabase, books: Bookkeeping
) -> None:
    ends = progress.end_offsets(settings, "search")
    assert progress.hindrance(settings, "search", ends) == ""
    detach(books, MERCHANT, 0)
    detach(books, OTHER, 2, "parked")
    begins = "search has not accepted everything: "
    both = begins + "2 detached lanes are behind, 1 of them paused or parked"
    assert progress.hindrance(settings, "search", ends) == both
    running = begins + "1 detached lanes are behind"
    assert progress.hindrance(settings, "search", ends, stopped_count=False) == running
    assert progress.hindrance(settings, "search", ends, merchant=MERCHANT) == running
    assert progress.hindrance(settings, "search", ends, merchant=OTHER, stopped_count=False) == ""
    assert progress.hindrance(settings, "search", ends, merchant="9") == ""
    commit(settings, 4)
    requests.pause_consumer(database, "search", actor="ann", reason="it moves")
    behind = begins + "2 records are behind its committed offsets; ann has paused it: it moves"
    assert progress.hindrance(settings, "search", ends, merchant="9") == behind


def age(settings: Settings) -> int:
    """In whole seconds, as old as the records were when the test began."""
    found = progress.oldest_seconds(settings, "search", time.time())
    return next((one for one in AGES if one <= found < one + 100), 0)


def test_the_oldest_record_may_be_a_detached_lane_s(
    settings: Settings, database: ControlDatabase, books: Bookkeeping
) -> None:
    # Mutants: committed offsets alone; the detached lane alone.
    assert age(settings) == 0
    detach(books, MERCHANT, 2, "paused")
    assert age(settings) == 400
    commit(settings, 4)
    assert age(settings) == 400
    detach(books, OTHER, 1)
    assert age(settings) == 500
    commit(settings, 0)
    assert age(settings) == 600
    commit(settings, 4)
    fence = books.take_over([HOME])[HOME].tenure.fence
    books.close(HOME, fence, [MERCHANT, OTHER])
    assert age(settings) == 200


def test_a_lane_whose_place_passed_retention_is_as_old_as_what_is_left(
    settings: Settings, books: Bookkeeping, kafka_admin: KafkaAdminClient
) -> None:
    # Mutant: its place is read as it is, which Kafka refuses.
    place = Topics.of(settings, "search").place(HOME)
    delete_before(kafka_admin, place.topic, place.partition, 3)
    detach(books, MERCHANT, 1, "paused")
    assert age(settings) == 300
    delete_before(kafka_admin, place.topic, place.partition, RECORDS)
    assert age(settings) == 0


def delete_before(admin: KafkaAdminClient, topic: str, partition: int, offset: int) -> None:
    """What retention does."""
    admin.delete_records({TopicPartition(topic, partition): offset})


def test_lanes_detached_in_a_topic_that_was_made_anew_are_refused(
    settings: Settings, database: ControlDatabase, books: Bookkeeping
) -> None:
    # Mutant: their offsets are taken for this topic's: what comes before them there is passed over and never fed.
    detach(books, MERCHANT, RECORDS)
    ensure_started(database, settings, "search")
    detach(books, MERCHANT, RECORDS + 1)
    with pytest.raises(PositionLostError, match="1 detached lanes of search stand beyond the end"):
        ensure_started(database, settings, "search")


def settle(settings: Settings, database: ControlDatabase, merchant: str | None = None) -> set[str]:
    with Elasticsearch("http://127.0.0.1:1") as nowhere:
        return Verification(settings, database, nowhere, 0, lambda _: None)._settle([], merchant)


def test_verify_waits_for_detached_lanes_and_leaves_out_those_that_are_held(
    settings: Settings, database: ControlDatabase, books: Bookkeeping
) -> None:
    # Mutants: verify waits for committed offsets alone; it waits for lanes that are held, and never settles; those are
    # compared.
    assert settle(settings, database) == set()
    detach(books, MERCHANT, 0)
    with pytest.raises(NotSettledError, match="search has not accepted everything: 1 detached lanes"):
        settle(settings, database)
    assert settle(settings, database, OTHER) == set()
    detach(books, MERCHANT, 0, "paused")
    detach(books, OTHER, 2, "parked")
    assert settle(settings, database) == {MERCHANT, OTHER}
    assert settle(settings, database, OTHER) == {OTHER}
    assert settle(settings, database, "9") == set()
