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
    # Mutants: home before the copy tells of the copy; no raise: the old home's versions win; no home: nothing more is told;
    # a snapshot that replaces nothing leaves what went unseen in the old home.
    stop = threading.Event()
    writers = [
        threading.Thread(target=others, args=(two, source, merchant, stop))
        for source, merchant in ((EAST, 7), (WEST, 8))
    ]
    for writer in writers:
        writer.start()
    try:
        two.run(EAST, "update orders set v = 99 where id = 2", "select cdc.emit('6', 'last', '{}')")
        unseen = 'alter table lines {} trigger "!cdc"'
        two.run(EAST, unseen.format("disable"), "delete from lines where id = 20", unseen.format("enable"))
        for point in BEFORE_HOME + AFTERWARDS:
            two.move(EAST, WEST, failpoint=point)
            if point == "move.copied":
                noted = two.ask(WEST, "select count(*), min(merchant), max(merchant) from cdc.owners")
                assert noted == [(len([row for row in two.rows(WEST, "6") if row[1] == "lines"]), "6", "6")]
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
    assert wait_until(lambda: two.ask(EAST, "select generation from cdc.identity")[0][0] > 50, 120)
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


def test_what_is_older_is_waited_for_and_what_changes_later_is_copied_again(two: Shards) -> None:
    # Mutants: no wait for older transactions: the copy lacks row 900; no second look: row 2 arrives as it was copied.
    with psycopg.connect(two.sources[EAST].writer_url) as writer:
        writer.execute("insert into orders (id, merchant_id, v) overriding system value values (900, 6, 1)")
        process = two.moving(EAST, WEST, failpoint="move.raised")
        assert process.stdout is not None
        said = ""
        while f"waits for the transaction of process {writer.info.backend_pid}" not in said:
            said = process.stdout.readline()
            assert said, process.wait()
        writer.commit()
    process.communicate(timeout=120)
    assert ("6", "orders", "900") in two.rows(WEST, "6")

    two.run(EAST, "update orders set v = 77, secret = 'new' where id = 2")
    code, said = two.tried(EAST, WEST)
    assert code == 1 and "not frozen" in said
    two.move(EAST, WEST)
    assert two.ask(WEST, "select v, secret from public.orders where id = 2") == [(77, "new")]
    equal(two, WEST)


def copied_by_hand(two: Shards) -> None:
    """What a tool of the operator's own would do."""
    of_it = "id, merchant_id, v, note, secret from orders where merchant_id = 6"
    of_them = (
        "id, order_id, after, v from lines where order_id in (select id from orders where merchant_id = 6)"
    )
    for query, into in (
        (of_it, "orders (id, merchant_id, v, note, secret)"),
        (of_them, "lines (id, order_id, after, v)"),
    ):
        with (
            psycopg.connect(two.sources[EAST].writer_url) as reader,
            psycopg.connect(two.sources[WEST].writer_url) as writer,
            reader.cursor().copy(f"copy (select {query}) to stdout".encode()) as blocks,
            writer.cursor().copy(f"copy {into} from stdin".encode()) as copy,
        ):
            for block in blocks:
                copy.write(block)


def test_a_tool_of_ones_own_is_checked_and_a_failover_that_lost_a_place_is_mended(two: Shards) -> None:
    # Mutant: without `restore` the former home tells of the merchant again, and the new one of nothing.
    code, said = two.tried(EAST, WEST, "--copied")
    assert code == 1 and 'type "orders": east has 10 rows of merchant 6, west has 0' in said
    copied_by_hand(two)
    code, said = two.tried(EAST, WEST, "--revoke")
    assert code == 1 and "did not copy" in said
    two.move(EAST, WEST, "--copied")
    assert two.listed()["away"] == {EAST: ["6"], WEST: []}

    for source in (EAST, WEST):
        two.stop(source)
    two.ask(EAST, "delete from cdc.away returning 1")
    two.ask(WEST, "select cdc.away('6')")
    for source in (EAST, WEST):
        two.start(source)
    assert wait_until(lambda: away(two) == {EAST: ["6"], WEST: []}, 30, pause=0.1)
    equal(two, WEST)


def test_everything_that_stands_against_a_move_is_told_and_nothing_is_begun(two: Shards) -> None:
    def refused(source: str, target: str, merchant: str = "6") -> str:
        code, said = two.tried(source, target, "--dry-run", merchant=merchant)
        assert code == 1
        return said

    assert "is both" in refused(EAST, EAST)
    assert "is no merchant" in refused(EAST, WEST, "_east")
    assert "has no row of merchant 9" in refused(EAST, WEST, "9")
    code, said = two.tried(EAST, WEST, "--dry-run")
    assert code == 0 and "10 rows of lines" in said
    two.run(WEST, "insert into orders (id, merchant_id, v) overriding system value values (2, 6, 5)")
    assert "DELETE FROM" in refused(EAST, WEST)
    sources.store(two.database, sources.Source("other", "x", 16_000))
    two.run(WEST, "alter table lines alter v type bigint")
    assert "lines of west have not the same columns" in refused(EAST, WEST)
    two.run(WEST, "alter table lines alter v type integer")
    two.stop(WEST)
    said = refused(EAST, WEST)
    assert "west has no relay" in said and "16000" in said
    assert two.listed() == {"placements": [], "away": {EAST: [], WEST: []}}
