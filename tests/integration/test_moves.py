"""A merchant moves between two sources, on real relays: killed anywhere, taken back anywhere, and what sinks then hold."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.control import snapshots, sources
from pipeline.control.database import ControlDatabase, migrate
from tests.conftest import SourceDatabase, unique
from tests.integration.capture_process import topics
from tests.integration.shards import EAST, WEST, Shards, shards

pytestmark = pytest.mark.integration
BEFORE_HOME = [
    "move.checked",
    "move.away_target",
    "move.frozen",
    "move.away_source",
    "move.drained",
    "move.copying",
    "move.copied",
    "move.raised",
    "move.decided",
]
AFTERWARDS = ["move.home", "move.snapshot", "move.done"]
ROWS = (
    "insert into orders (merchant_id, v, note, secret) select 6 + g % 2, g, e'a\\tb\\n\\\\' || g, 's' || g"
    " from generate_series(1, 20) g",
    "insert into lines select g, g, case when g > 2 then g - 2 end, g from generate_series(1, 20) g",
)


@pytest.fixture
def two(
    source_database: Callable[[], SourceDatabase],
    control_url: str,
    kafka_bootstrap: str,
    kafka_admin: KafkaAdminClient,
    variables: Mapping[str, str],
    redis_url: str,
    tmp_path: Path,
) -> Iterator[Shards]:
    """East with rows of merchants 6 and 7 and ev_ids far ahead of west's, both with a relay."""
    database = ControlDatabase(control_url)
    migrate(database)
    database.close()
    databases = {EAST: source_database(), WEST: source_database()}
    with (
        topics(kafka_bootstrap, kafka_admin, unique("topic")) as topic,
        shards(databases, control_url, tmp_path, variables, kafka_bootstrap, topic) as made,
    ):
        made.ask(EAST, "select nextval(queue_event_seq::regclass) from pgq.queue, generate_series(1, 10000)")
        made.run(EAST, *ROWS)
        made.run(WEST, "alter table orders alter id restart with 1000001")
        for source in (EAST, WEST):
            made.start(source)
        yield made


def others(two: Shards, source: str, merchant: int, stop: threading.Event) -> None:
    """Another merchant, who keeps writing."""
    with psycopg.connect(two.sources[source].writer_url, autocommit=True) as writer:
        while not stop.wait(0.02):
            writer.execute("insert into orders (merchant_id, v) values (%s, 0)", (merchant,))
            writer.execute("update orders set v = v + 1 where id = (select max(id) from orders)")


def equal(two: Shards, source: str) -> None:
    """Whatever the order of partitions, a sink holds of merchant 6 what `source` has, and nothing of another's."""
    two.settle()
    for seed in range(5):
        sink = two.sink(seed)
        assert sink.living("6") == two.rows(source, "6")
        assert sink.sources("6") <= {source}


def away(two: Shards) -> dict[str, list[str]]:
    query = "select merchant from cdc.away where home_ev is null"
    return {source: [row[0] for row in two.ask(source, query)] for source in (EAST, WEST)}


def test_a_move_killed_after_every_step_arrives_whole_and_in_order(two: Shards) -> None:
    # Mutants: home before the copy tells of the copy; no raise: the old home's versions win; no home: nothing more is told.
    stop = threading.Event()
    writers = [
        threading.Thread(target=others, args=(two, source, merchant, stop))
        for source, merchant in ((EAST, 7), (WEST, 8))
    ]
    for writer in writers:
        writer.start()
    try:
        two.run(EAST, "update orders set v = 99 where id = 2", "select cdc.emit('6', 'last', '{}')")
        for point in BEFORE_HOME + AFTERWARDS:
            two.move(EAST, WEST, failpoint=point)
        said = two.move(EAST, WEST)
        assert "goes on after: snapshot" in said and "DELETE FROM" in said
        two.run(
            WEST,
            "select cdc.emit('6', 'first', '{}')",
            "update orders set v = v + 1000 where id between 4 and 6",
            "delete from orders where id = 20",
            "insert into orders (merchant_id, v) values (6, 5)",
        )
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    owners = two.ask(WEST, "select count(*), count(distinct merchant) from cdc.owners")
    assert owners == [(len([row for row in two.rows(WEST, "6") if row[1] == "lines"]), 1)]
    assert away(two) == {EAST: ["6"], WEST: []}
    equal(two, WEST)
    sink = two.sink()
    assert sink.living("7") == two.rows(EAST, "7") and sink.living("8") == two.rows(WEST, "8")
    events = two.events("6")
    assert [event.version for event in events] == sorted(event.version for event in events)
    assert [event.type for event in events if event.op == "event"] == ["last", "first"]
    assert {event.src for event in events if event.op == "c" and event.type == "lines"} == {EAST}

    # The old home's rows neither come back under a higher generation nor tell of their clean-up.
    sources.ask_to_raise(two.database, EAST, 50)
    assert wait_until(lambda: two.ask(EAST, "select generation from cdc.identity")[0][0] > 50, 30)
    snapshot(two, EAST)
    equal(two, WEST)
    two.run(EAST, "delete from orders where merchant_id = 6")
    equal(two, WEST)

    two.move(WEST, EAST)
    two.run(EAST, "update orders set v = 7 where id = 4", "delete from orders where id = 18")
    assert away(two) == {EAST: [], WEST: ["6"]}
    equal(two, EAST)


def snapshot(two: Shards, source: str) -> None:
    request = snapshots.request(two.database, source)

    def done() -> bool:
        state = snapshots.load(two.database, request)
        assert state is not None and state.status != "failed", state
        return state.finished

    assert wait_until(done, 30, pause=0.1)


def test_a_move_can_be_revoked_after_every_step_before_home(two: Shards) -> None:
    # Mutants: not away in the target: taking the copy back deletes the merchant under a higher generation; the source not
    # brought home: its writes are told no more.
    sources.ask_to_raise(two.database, WEST, 30)
    assert wait_until(lambda: two.ask(WEST, "select generation from cdc.identity")[0][0] > 30, 30)
    for place, point in enumerate(BEFORE_HOME):
        two.move(EAST, WEST, failpoint=point)
        if point == "move.copied":
            for within in ("move.revoking", "move.revoked"):
                two.move(EAST, WEST, "--revoke", failpoint=within)
            code, said = two.tried(EAST, WEST)
            assert code == 1 and "is being revoked" in said
        two.move(EAST, WEST, "--revoke")
        assert away(two) == {EAST: [], WEST: []}
        assert two.rows(WEST, "6") == {}
        two.run(EAST, f"update orders set v = {place + 500} where id = 4")
    equal(two, EAST)
    assert {event.src for event in two.events("6")} == {EAST}
    two.move(EAST, WEST)
    code, said = two.tried(EAST, WEST, "--revoke")
    assert code == 1 and "is not moving" in said
    equal(two, WEST)
