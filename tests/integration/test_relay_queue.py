"""The queue as the relay reads it: nothing is lost between batches, whatever transactions and rotations do."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from devstack.process import wait_until
from pipeline.capture import queue as queues
from pipeline.capture.queue import Queue
from pipeline.capture.rotation import maintain
from pipeline.capture.session import session
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration
REPEATABLE_READ = psycopg.IsolationLevel.REPEATABLE_READ
SERIALIZABLE = psycopg.IsolationLevel.SERIALIZABLE
LEVELS = (REPEATABLE_READ, SERIALIZABLE, REPEATABLE_READ, psycopg.IsolationLevel.READ_COMMITTED)


@pytest.fixture
def installed(captured: Captured) -> Captured:
    captured.run("create table t (id bigint primary key, merchant_id integer)")
    captured.install(t="merchant_id")
    return captured


@contextmanager
def relaying(captured: Captured) -> Iterator[Queue]:
    with session(captured.source.url) as connection:
        yield Queue(connection)


def drained(captured: Captured, queue: Queue) -> list[object]:
    queue.tick()
    return [event.key["id"] for event in captured.batches(queue)]


def rotate(captured: Captured, *, complete: bool) -> None:
    """Switch tables as if the period were over; `complete` does PgQ's step 2 at once, as pgqd would."""
    with psycopg.connect(captured.source.admin_url, autocommit=True) as admin:
        admin.execute("update pgq.queue set queue_switch_time = now() - interval '1 day'")
        admin.execute("select pgq.maint_rotate_tables_step1('cdc')")
        if complete:
            admin.execute("select pgq.maint_rotate_tables_step2()")


def rotated(captured: Captured, queue: Queue, *, complete: bool = True) -> bool:
    """True when a switch came about: other databases' transactions may be older than the last one for a while."""
    before, _ = switched(captured)
    drained(captured, queue)
    rotate(captured, complete=complete)
    return switched(captured)[0] != before


def behind_it(captured: Captured, queue: Queue) -> bool:
    """True once a finished tick sees the last switch, and nobody looks into the table before it any more."""
    drained(captured, queue)
    row = queue.connection.execute(
        "select txid_snapshot_xmin(tick_snapshot) > queue_switch_step2 from pgq.tick, pgq.queue order by tick_id desc limit 1"
    ).fetchone()
    return row is not None and bool(row[0])


def switched(captured: Captured) -> tuple[int, bool]:
    """The current table, and whether the switch to it is complete."""
    with psycopg.connect(captured.source.admin_url) as admin:
        row = admin.execute(
            "select queue_cur_table, queue_switch_step2 is not null from pgq.queue"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize("level", [REPEATABLE_READ, SERIALIZABLE], ids=lambda level: level.name)
def test_a_snapshot_older_than_a_rotation_loses_nothing(
    installed: Captured, level: psycopg.IsolationLevel
) -> None:
    # Mutant, run here: PgQ's own get_batch_events does not find the event.
    with relaying(installed) as queue, installed.writer() as writer:
        drained(installed, queue)
        writer.isolation_level = level
        with writer.transaction():
            writer.execute("select count(*) from t")
            assert wait_until(lambda: rotated(installed, queue), 20)
            assert wait_until(lambda: behind_it(installed, queue), 20)
            writer.execute("insert into t values (1, 6)")
        queue.tick()
        batch = queue.next_batch()
        assert batch is not None
        theirs = queue.connection.execute(
            "select ev_id from pgq.get_batch_events(%s)", (batch.id,)
        ).fetchall()
        assert theirs == []
        assert [event.key for event in installed.events(queue, batch)] == [{"id": 1}]


def test_a_rotation_is_complete_only_when_no_older_snapshot_lives(installed: Captured) -> None:
    # Mutant: step 2 without its gate; the table an old snapshot writes to could be emptied next.
    with relaying(installed) as queue, installed.writer() as writer:
        drained(installed, queue)
        writer.isolation_level = REPEATABLE_READ
        with writer.transaction():
            writer.execute("select count(*) from t")
            assert wait_until(lambda: rotated(installed, queue, complete=False), 20)
            maintain(queue.connection)
            assert switched(installed) == (1, False)

        def completed() -> bool:
            maintain(queue.connection)
            return switched(installed) == (1, True)

        assert wait_until(completed, 20)


def test_rotation_waits_for_the_relay(installed: Captured) -> None:
    # Mutant: tables switched although a batch is open since before the last switch; its events would be emptied.
    with relaying(installed) as queue:
        assert wait_until(lambda: rotated(installed, queue), 20)
        rotate(installed, complete=True)
        assert switched(installed) == (1, True)
        assert wait_until(lambda: rotated(installed, queue), 20)
        assert switched(installed) == (2, True)


def test_rotations_under_load_lose_nothing(installed: Captured) -> None:
    # Mutants: step 2 at once (`rotate(..., complete=True)`) loses a few percent; so does PgQ's get_batch_events.
    stop = threading.Event()
    written: list[int] = []

    def write(number: int) -> None:
        chance = random.Random(number)
        with installed.writer() as writer:
            writer.isolation_level = LEVELS[min(number, 3)]
            for step in range(10_000):
                if stop.is_set():
                    return
                with writer.transaction():
                    writer.execute("select count(*) from t where id = 1")
                    stop.wait(chance.random() * (0.2 if number < 3 else 0.02))
                    writer.execute("insert into t values (%s, 6)", (number * 10_000 + step,))
                written.append(number * 10_000 + step)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    got: list[object] = []
    tables = set[int]()
    with relaying(installed) as queue:
        until = time.monotonic() + 4
        # Other databases' transactions may be older than a switch for a while.
        while time.monotonic() < until or (len(tables) < 3 and time.monotonic() < until + 20):
            rotate(installed, complete=False)
            maintain(queue.connection)
            tables.add(switched(installed)[0])
            got += drained(installed, queue)
            stop.wait(0.05)
        stop.set()
        for thread in threads:
            thread.join()
        got += drained(installed, queue)
    assert tables == {0, 1, 2}
    assert sorted(map(str, got)) == sorted(map(str, written))


def test_a_long_transaction_comes_whole_when_it_commits(installed: Captured) -> None:
    # Mutant: without the `late` transactions of a batch.
    with relaying(installed) as queue, installed.writer() as writer:
        drained(installed, queue)
        with writer.transaction():
            writer.execute("insert into t values (1, 6)")
            installed.run("insert into t values (2, 6)")
            assert drained(installed, queue) == [2]
            writer.execute("insert into t values (3, 6)")
            assert drained(installed, queue) == []
        assert drained(installed, queue) == [1, 3]
        assert drained(installed, queue) == []


def test_a_prepared_transaction_comes_when_it_is_committed(installed: Captured) -> None:
    # Mutant: without the `late` transactions of a batch it never comes: its id lies below the last tick's.
    with relaying(installed) as queue, installed.writer() as writer:
        gid = f"{installed.source.name}-1"
        writer.execute("begin; insert into t values (1, 6)")
        writer.execute(f"prepare transaction '{gid}'".encode())
        assert drained(installed, queue) == []
        writer.execute(f"commit prepared '{gid}'".encode())
        assert drained(installed, queue) == [1]


def test_a_commit_that_moves_no_sequence_is_noticed(installed: Captured) -> None:
    # Mutant: ticking only when the sequence moved leaves this event until somebody writes again.
    with relaying(installed) as queue, installed.writer() as writer:
        with writer.transaction():
            writer.execute("insert into t values (1, 6)")
            queue.tick()
            last = queue.next_batch()
            assert last is not None
            queue.finish(last)
            value = queue.last_value()
            assert not queue.unticked(last)
        assert queue.last_value() == value
        assert queue.unticked(last)
        assert drained(installed, queue) == [1]


def test_an_unfinished_batch_comes_again_unchanged(installed: Captured) -> None:
    # Mutant: without txid_visible_in_snapshot it has, the second time, what ran at its tick and is committed by then.
    seen = []
    with installed.writer() as running:
        running.execute("begin; insert into t values (9, 9)")
        installed.run("insert into t values (1, 6), (2, 7)", "delete from t where id = 1")
        for _ in range(2):
            with relaying(installed) as queue:
                queue.tick()
                batch = queue.next_batch()
                assert batch is not None
                seen.append((batch, list(queue.events(batch))))
            running.execute("commit")
            installed.run("update t set merchant_id = merchant_id + 1")
    assert seen[0] == seen[1] and len(seen[0][1]) == 3


def test_only_one_relay_holds_the_lock_and_a_finished_batch_cannot_be_finished(installed: Captured) -> None:
    with relaying(installed) as first, relaying(installed) as second:
        assert first.acquire() and not second.acquire()
        first.tick()
        batch = first.next_batch()
        assert batch is not None and second.next_batch() == batch
        assert second.finish(batch)
        assert not first.finish(batch)
    with relaying(installed) as third:
        assert third.acquire()


def test_a_snapshot_is_covered_once_all_it_saw_is_finished(installed: Captured) -> None:
    with relaying(installed) as queue, installed.writer() as writer, installed.writer() as endless:
        drained(installed, queue)
        with endless.transaction(), session(installed.source.url) as reader:
            endless.execute("insert into t values (9, 6)")
            with writer.transaction():
                writer.execute("insert into t values (1, 6)")
                drained(installed, queue)
            seen = reader.execute("select pg_current_snapshot()::text").fetchone()
            assert seen is not None
            assert not queues.last_tick_covers(reader, seen[0])
            queue.tick()
            assert not queues.last_tick_covers(reader, seen[0])
            drained(installed, queue)
            assert queues.last_tick_covers(reader, seen[0])


def test_lag_counts_from_the_last_finished_tick(installed: Captured) -> None:
    with relaying(installed) as queue:
        drained(installed, queue)
        assert queue.lag() == queues.Lag(0.0, 0)
        installed.run("insert into t values (1, 6), (2, 6)")
        lag = queue.lag()
        assert lag.pending == 2 and lag.seconds > 0
        drained(installed, queue)
        assert queue.lag() == queues.Lag(0.0, 0)
        queues.nudge(queue.connection)
        assert queue.lag().pending == 1
