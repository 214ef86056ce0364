"""A snapshot inside the relay: after everything it saw, beside live events, and never in their way."""

from collections.abc import Callable, Iterator

import pytest

from devstack.process import wait_until
from pipeline.capture import rows
from pipeline.capture.queue import Queue, notices
from pipeline.capture.session import session
from pipeline.control import placements, snapshots
from pipeline.control.database import ControlDatabase
from pipeline.errors import FencedError
from tests.integration.captured import NAME, Captured
from tests.integration.relaying import Stage, staged

pytestmark = pytest.mark.integration


@pytest.fixture
def stage(captured: Captured, kafka_bootstrap: str, kafka_topic: Callable[..., str]) -> Iterator[Stage]:
    captured.run(
        "create table t (id bigint primary key, merchant_id integer, v integer)",
        "insert into t select g, 6, 0 from generate_series(1, 10) g",
    )
    captured.install(t="merchant_id")
    with staged(captured, kafka_bootstrap, kafka_topic(1)) as made:
        yield made


def test_rows_wait_for_a_finished_tick_taken_after_they_were_read(stage: Stage) -> None:
    # Mutant: published at once, a row could come before the change it shows, and a sink without versions keep the older.
    request = snapshots.request(stage.captured.database, NAME)
    _read_a_chunk(stage)
    assert not any(stage.work.step(None) for _ in range(5))
    assert stage.rows() == []
    stage.carry_out(request)
    state = stage.state(request)
    assert (state.rows_estimated, state.rows_published, len(stage.rows())) == (10, 10, 10)


def _read_a_chunk(stage: Stage) -> None:
    """Other databases' transactions delay the mark, so that may take a while."""
    assert wait_until(lambda: stage.work.step(None), 20, pause=0.01)


def test_live_events_flow_between_chunks(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    request = snapshots.request(stage.captured.database, NAME)
    stage.run_until(lambda: stage.metrics.snapshot_rows >= 4)
    stage.captured.run("update t set v = 1 where id in (1, 10)")
    assert not stage.done(request)
    stage.run_until(lambda: {event.key["id"] for event in stage.changes() if event.op == "u"} == {1, 10})
    assert not stage.done(request)
    stage.carry_out(request)
    events = stage.changes() + stage.rows()
    newest = {event.key["id"]: event for event in sorted(events, key=lambda event: event.version)}
    assert {id: event.row()["v"] for id, event in newest.items()} == {
        id: int(id in (1, 10)) for id in range(1, 11)
    }


def test_a_chunk_read_under_another_generation_is_read_again(stage: Stage) -> None:
    # Mutant: the chunk's rows would carry a version that the changes of the new generation do not lose against.
    request = snapshots.request(stage.captured.database, NAME)
    _read_a_chunk(stage)
    stage.queue.connection.execute("update cdc.identity set generation = 2")
    stage.carry_out(request)
    assert {event.gen for event in stage.rows()} == {2}
    assert {sweep.id for _, _, sweep in stage.sweeps()} == {f"{NAME}:t:snapshot:{request}:2"}


def test_a_finished_snapshot_answers_the_notices_before_it(stage: Stage) -> None:
    # Mutant: all of the table's notices taken away at its end.
    source = stage.queue.connection
    note = "insert into cdc.notices (table_name, reason) values ('public.t', 'a test')"
    source.execute(note)
    request = snapshots.request(stage.captured.database, NAME)
    _read_a_chunk(stage)
    source.execute(note)
    stage.carry_out(request)
    assert len(notices(source)) == 1


def test_a_table_that_changed_fails_the_snapshot_and_not_the_relay(stage: Stage) -> None:
    request = snapshots.request(stage.captured.database, NAME)
    stage.captured.run("alter table t rename column v to w")
    stage.run_until(lambda: stage.done(request))
    state = stage.state(request)
    assert state.status == "failed" and "capture install" in state.detail
    stage.captured.run("delete from t where id = 1")
    stage.run_until(lambda: [event.op for event in stage.changes()] == ["d"])


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
    assert snapshots.begin(database, stage.state(first), 1, {})
    second = snapshots.request(database, NAME)
    assert len({first, second, *others}) == 5
    assert [each.id for each in snapshots.open_requests(database, NAME)] == [first, *others, second]
    stage.run_until(lambda: stage.done(first))
    assert [each.id for each in snapshots.open_requests(database, NAME)] == [*others, second]


@pytest.mark.parametrize("merchant", [None, "6", "7"])
def test_no_snapshot_that_tells_of_a_merchant_begins_while_it_moves_away(
    stage: Stage, merchant: str | None
) -> None:
    """It would leave the merchant out, and sweep rows that nobody else has brought yet.

    Mutants: one of that merchant alone may begin; asked only when it was found, not when it begins; a move that waits for
    those of all merchants only.
    """
    database = stage.database
    begun = snapshots.request(database, NAME, merchant=merchant)
    assert snapshots.begin(database, stage.state(begun), 1, {})
    found = stage.state(snapshots.request(database, NAME, merchant=merchant))
    placements.begin(database, "6", NAME, "mall", "a test", held=False)
    assert begun in [each.id for each in snapshots.open_requests(database, NAME)]
    placements.advance(database, "6", "away_target")
    assert snapshots.at_work(database, NAME, "6") == ([begun] if merchant != "7" else [])
    assert snapshots.begin(database, found, 1, {}) == (merchant == "7")
    assert (found.id in [each.id for each in snapshots.open_requests(database, NAME)]) == (merchant == "7")


def test_the_relay_goes_on_without_the_control_database(
    captured: Captured, kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    captured.run("create table t (id bigint primary key, merchant_id integer)")
    captured.install(t="merchant_id")
    nowhere = ControlDatabase("postgresql://nobody@127.0.0.1:1/nothing")
    with staged(captured, kafka_bootstrap, kafka_topic(1), nowhere) as stage:
        captured.run("insert into t values (1, 6)")
        stage.run_until(lambda: len(stage.changes()) == 1)


def test_a_relay_whose_batch_somebody_else_finished_stops(stage: Stage) -> None:
    # Mutant: without looking at finish_batch's answer two relays would publish side by side, unnoticed.
    def finished_by_another() -> float:
        stage.clock[0] = finish
        return 0.0  # asked after the tick

    def finish() -> float:
        with session(stage.captured.source.url) as connection:
            other = Queue(connection)
            batch = other.next_batch()
            assert batch is not None and other.finish(batch)
        return 0.0

    stage.run_until(lambda: stage.queue.lag().pending == 0)
    stage.captured.run("insert into t values (99, 6, 0)")
    stage.clock[0] = finished_by_another
    with pytest.raises(FencedError):
        stage.run_until(lambda: False)
