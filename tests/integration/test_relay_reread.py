"""Rows whose image failed in the trigger are read again by the relay, and never shown to another merchant."""

from collections.abc import Callable
from contextlib import closing
from functools import partial

import psycopg
import pytest

from pipeline.capture.queue import Event, Queue
from pipeline.capture.reread import Rereader
from pipeline.capture.session import connect, of_the_data, session
from pipeline.errors import PermanentError
from tests.integration.captured import Captured
from tests.integration.relaying import staged

pytestmark = pytest.mark.integration


def failed_events(captured: Captured, *later: str) -> list[Event]:
    """Changes of rows 1 to 4 made while no image could be made, and `later` statements once that is mended."""
    captured.run(
        "create table t (id bigint, part boolean, merchant_id integer, v integer, w integer, primary key (id, part))"
    )
    captured.install(t="merchant_id")
    captured.run("insert into t select g, true, 6, g, g from generate_series(1, 4) g")
    captured.drain()
    captured.run(
        "alter table t drop column w",
        "update t set v = 10 * id",
        "alter table t add column w integer",
        *later,
    )
    with session(captured.source.url) as connection:
        queue = Queue(connection)
        queue.tick()
        batch = queue.next_batch()
        assert batch is not None
        return [event for event in queue.events(batch) if event.after is None and event.op != "d"]


def test_the_row_is_read_again_as_it_stands(captured: Captured) -> None:
    # Mutants: the event is left out; a row that moved to another merchant is shown to the former one.
    events = failed_events(
        captured,
        "update t set v = 77 where id = 1",
        "delete from t where id = 2",
        "update t set merchant_id = 7 where id = 3",
    )
    assert [event.key for event in events] == [f'{{"id":{number},"part":true}}' for number in range(1, 5)]
    with closing(Rereader(partial(connect, captured.source.url), captured.tables)) as reread:
        completed = [reread.completed(event) for event in events]
    assert [event and event.after for event in completed] == [
        '{"id":1,"part":true,"merchant_id":6,"v":77,"w":null}',
        None,
        None,
        '{"id":4,"part":true,"merchant_id":6,"v":40,"w":null}',
    ]
    assert all(event is None or event[:3] == events[place][:3] for place, event in enumerate(completed))


def test_a_row_that_cannot_be_read_either_stops_nobody(captured: Captured) -> None:
    # Mutant: without the except the batch fails for ever.
    (event, *_) = failed_events(captured, "alter table t drop column w")
    with closing(Rereader(partial(connect, captured.source.url), captured.tables)) as reread:
        assert reread.completed(event) is None


@pytest.mark.soak
def test_a_row_beyond_a_gigabyte_breaks_no_statement_and_stops_nobody(captured: Captured) -> None:
    # Mutant: whatever is not a DataError or a ProgrammingError ends the session; the relay tries this row for ever.
    captured.run(
        "create table t (id integer primary key, merchant_id integer, v jsonb)",
        "alter table t alter v set storage external",
    )
    captured.install(t="merchant_id")
    captured.run(
        r"insert into t values (1, 6, to_jsonb(repeat(E'\x01', 190000000)))", "update t set merchant_id = 7"
    )
    with session(captured.source.url) as connection:
        queue = Queue(connection)
        queue.tick()
        batch = queue.next_batch()
        assert batch is not None
        events = list(queue.events(batch))
    assert [(event.op, event.key, event.after) for event in events] == [
        ("c", '{"id":1}', None), ("d", '{"id":1}', None), ("u1", '{"id":1}', None),
    ]  # fmt: skip
    with closing(Rereader(partial(connect, captured.source.url), captured.tables)) as reread:
        assert reread.completed(events[0]) is None


def test_only_what_the_data_is_to_blame_for_is_left_out() -> None:
    # Mutant: a session that was lost, or a server that starts, taken for a row that cannot be read: the event is lost.
    blamed = [
        psycopg.errors.ProgramLimitExceeded, psycopg.errors.InternalError_, psycopg.errors.UndefinedColumn,
        psycopg.errors.NumericValueOutOfRange, psycopg.errors.InsufficientPrivilege, psycopg.errors.DatatypeMismatch,
    ]  # fmt: skip
    passing = [
        psycopg.errors.AdminShutdown, psycopg.errors.CannotConnectNow, psycopg.errors.OutOfMemory, psycopg.errors.DiskFull,
        psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, psycopg.OperationalError,
    ]  # fmt: skip
    assert [of_the_data(kind("")) for kind in (*blamed, *passing)] == [True] * 6 + [False] * 7


def test_events_of_a_table_that_is_captured_no_more_stop_nobody(
    captured: Captured, kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # Mutants: they are an error, whose hint does not help; or left out although only the control database has lost them.
    captured.run(
        "create table t (id integer primary key, merchant_id integer)",
        "create table u (like t including all)",
    )
    captured.install(t="merchant_id", u="merchant_id")
    captured.run("insert into u values (1, 6)", "insert into t values (1, 6)")
    captured.install(t="merchant_id")
    with staged(captured, kafka_bootstrap, kafka_topic(1)) as stage:
        stage.run_until(lambda: stage.metrics.batches > 0)
        assert [event.table for event in stage.changes()] == ["public.t"]
        assert stage.metrics.events_left_out == 1
    captured.tables.clear()
    captured.run("insert into t values (2, 6)")
    with (
        staged(captured, kafka_bootstrap, kafka_topic(1)) as stage,
        pytest.raises(PermanentError, match="capture install"),
    ):
        stage.run_until(lambda: stage.metrics.batches > 0)
