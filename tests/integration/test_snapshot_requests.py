"""A snapshot inside the relay: after everything it saw, beside live events, and never in their way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from devstack.process import wait_until
from pipeline.capture import rows
from pipeline.capture.envelope import Envelopes
from pipeline.capture.queue import Queue, notices
from pipeline.capture.relay import Clock, Relay
from pipeline.capture.session import session
from pipeline.capture.snapshot import Snapshots
from pipeline.control import snapshots
from pipeline.control.database import ControlDatabase
from pipeline.domain.event import Event, decode
from pipeline.errors import FencedError
from tests.integration.captured import NAME, Captured
from tests.integration.kafka_topic import read_topic
from tests.integration.relaying import publishing, relay_of

pytestmark = pytest.mark.integration


@dataclass(slots=True)
class Stage:
    """A relay driven by hand, and what it has published."""

    captured: Captured
    queue: Queue
    snapshots: Snapshots
    relay: Relay
    read: Callable[[], list[Event]]

    def run_until(self, condition: Callable[[], bool]) -> None:
        assert wait_until(lambda: condition() or (self.relay.run_once() and condition()), 30, pause=0)

    def done(self, request: int) -> bool:
        state = snapshots.load(self.captured.database, request)
        return state is not None and state.finished


@pytest.fixture
def wall() -> list[Callable[[], float]]:
    """The relay's clock, read once per event; a test may replace it."""
    return [lambda: 0.0]


@pytest.fixture
def stage(
    captured: Captured, kafka_bootstrap: str, kafka_topic: Callable[..., str], wall: list[Callable[[], float]]
) -> Iterator[Stage]:
    captured.run(
        "create table t (id bigint primary key, merchant_id integer, v integer)",
        "insert into t select g, 6, 0 from generate_series(1, 10) g",
    )
    captured.install(t="merchant_id")
    yield from _stage(captured, kafka_bootstrap, kafka_topic(1), wall, captured.database)


def _stage(
    captured: Captured,
    bootstrap: str,
    topic: str,
    wall: list[Callable[[], float]],
    database: ControlDatabase,
) -> Iterator[Stage]:
    envelopes = Envelopes(NAME, captured.tables)
    with publishing(bootstrap, topic) as publisher, session(captured.source.url) as connection:
        queue = Queue(connection)
        snapshot = Snapshots(
            database, NAME, captured.tables, queue, publisher, envelopes, topic, lambda: False
        )

        def now() -> float:
            return wall[0]()

        relay = relay_of(queue, publisher, envelopes, snapshot, topic, Clock(wall=now))
        yield Stage(captured, queue, snapshot, relay, lambda: _decoded(bootstrap, topic))


def _decoded(bootstrap: str, topic: str) -> list[Event]:
    return [decode(record.value, record.key.decode()) for record in read_topic(bootstrap, topic)]


def test_rows_wait_for_a_finished_tick_taken_after_they_were_read(stage: Stage) -> None:
    # Mutant: published at once, a row could come before the change it shows, and a sink without versions keep the older.
    request = snapshots.request(stage.captured.database, NAME)
    ticks = _ticks(stage)
    # Other databases' transactions delay the mark, so the chunk may take a while to be read.
    assert wait_until(lambda: stage.snapshots.step(None) or _ticks(stage) > ticks, 20, pause=0.01)
    assert not any(stage.snapshots.step(None) for _ in range(5))
    assert stage.snapshots.rows_published == 0
    stage.run_until(lambda: stage.done(request))
    state = snapshots.load(stage.captured.database, request)
    assert state is not None
    assert (state.status, state.rows_estimated, state.rows_published) == ("done", 10, 10)


def _ticks(stage: Stage) -> int:
    row = stage.queue.connection.execute("select max(tick_id) from pgq.tick").fetchone()
    assert row is not None
    return int(row[0])


def test_live_events_flow_between_chunks(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    request = snapshots.request(stage.captured.database, NAME)
    stage.run_until(lambda: stage.snapshots.rows_published >= 4)
    stage.captured.run("update t set v = 1 where id in (1, 10)")
    stage.run_until(lambda: stage.done(request))
    events = stage.read()
    order = [(event.op, event.key["id"]) for event in events]
    assert ("r", 4) in order[: order.index(("u", 1))] and ("r", 10) in order[order.index(("u", 10)) :]
    newest = {event.key["id"]: event for event in sorted(events, key=lambda event: event.version)}
    assert {id: event.row()["v"] for id, event in newest.items()} == {
        id: int(id in (1, 10)) for id in range(1, 11)
    }


def test_a_chunk_read_under_another_generation_is_read_again(stage: Stage) -> None:
    # Mutant: the chunk's rows would carry a version that the changes of the new generation do not lose against.
    request = snapshots.request(stage.captured.database, NAME)
    ticks = _ticks(stage)
    assert wait_until(lambda: stage.snapshots.step(None) or _ticks(stage) > ticks, 20, pause=0.01)
    stage.queue.connection.execute("update cdc.identity set generation = 2")
    stage.run_until(lambda: stage.done(request))
    assert {event.gen for event in stage.read()} == {2}


def test_a_finished_snapshot_answers_the_notices_before_it(stage: Stage) -> None:
    stage.captured.run("truncate t", "insert into t values (1, 6, 0)")
    request = snapshots.request(stage.captured.database, NAME)
    stage.snapshots.step(None)
    stage.captured.run("truncate t")
    stage.run_until(lambda: stage.done(request))
    assert len(notices(stage.queue.connection)) == 1


def test_a_table_that_changed_fails_the_snapshot_and_not_the_relay(stage: Stage) -> None:
    request = snapshots.request(stage.captured.database, NAME)
    stage.captured.run("alter table t rename column v to w")
    stage.run_until(lambda: stage.done(request))
    state = snapshots.load(stage.captured.database, request)
    assert state is not None and state.status == "failed" and "capture install" in state.detail
    stage.captured.run("delete from t where id = 1")
    stage.run_until(lambda: [event.op for event in stage.read()] == ["d"])


def test_requests_wait_their_turn_and_only_identical_ones_that_have_not_begun_are_one(stage: Stage) -> None:
    # Mutant: joined to one in work, a request would miss the rows that had been passed before it was made.
    database = stage.captured.database
    first = snapshots.request(database, NAME)
    assert snapshots.request(database, NAME) == first
    others = [
        snapshots.request(database, NAME, table="public.t"),
        snapshots.request(database, NAME, merchant="6"),
        snapshots.request(database, NAME, merchant="6", replaces="mall"),
    ]
    snapshots.begin(database, first, 1, {})
    second = snapshots.request(database, NAME)
    assert len({first, second, *others}) == 5
    assert [each.id for each in snapshots.open_requests(database, NAME)] == [first, *others, second]
    stage.run_until(lambda: stage.done(first))
    assert [each.id for each in snapshots.open_requests(database, NAME)] == [*others, second]


def test_the_relay_goes_on_without_the_control_database(
    captured: Captured, kafka_bootstrap: str, kafka_topic: Callable[..., str], wall: list[Callable[[], float]]
) -> None:
    captured.run("create table t (id bigint primary key, merchant_id integer)")
    captured.install(t="merchant_id")
    nowhere = ControlDatabase("postgresql://nobody@127.0.0.1:1/nothing")
    for stage in _stage(captured, kafka_bootstrap, kafka_topic(1), wall, nowhere):
        captured.run("insert into t values (1, 6)")
        stage.run_until(lambda stage=stage: len(stage.read()) == 1)  # type: ignore[misc]


def test_a_relay_whose_batch_somebody_else_finished_stops(
    stage: Stage, wall: list[Callable[[], float]]
) -> None:
    # Mutant: without looking at finish_batch's answer two relays would publish side by side, unnoticed.
    def finished_by_another() -> float:
        wall[0] = finish
        return 0.0  # asked after the tick

    def finish() -> float:
        with session(stage.captured.source.url) as connection:
            other = Queue(connection)
            batch = other.next_batch()
            assert batch is not None and other.finish(batch)
        return 0.0

    stage.run_until(lambda: stage.queue.lag().pending == 0)
    stage.captured.run("insert into t values (99, 6, 0)")
    wall[0] = finished_by_another
    with pytest.raises(FencedError):
        stage.run_until(lambda: False)
