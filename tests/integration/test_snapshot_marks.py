"""Rows read by a snapshot, at the version of a mark, mixed with live changes in any order: the newest state wins."""

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from devstack.process import wait_until
from pipeline.capture import rows
from pipeline.capture.chunks import ReadChunk, read_chunk
from pipeline.capture.marks import Mark, take_mark, valid_mark
from pipeline.capture.queue import Queue
from pipeline.capture.session import session
from pipeline.domain.version import EVENT, SNAPSHOT, pack
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration


@pytest.fixture
def installed(captured: Captured) -> Captured:
    captured.run(
        "create table t (id bigint primary key, merchant_id integer, v integer)",
        "insert into t select g, 6, 0 from generate_series(1, 30) g where g % 3 <> 0",
    )
    captured.install(t="merchant_id")
    return captured


@contextmanager
def relaying(captured: Captured) -> Iterator[Queue]:
    with session(captured.source.url) as connection:
        yield Queue(connection)


def read(captured: Captured, queue: Queue) -> ReadChunk | None:
    return read_chunk(queue, captured.tables[0], None)


def settled(queue: Queue) -> Mark:
    """A mark that counts: other databases' transactions share the server's ids and may delay it."""
    mark = take_mark(queue.connection)
    assert wait_until(lambda: valid_mark(queue.connection) == mark, 20, pause=0.01)
    return mark


def test_rows_before_a_change_lose_and_rows_after_it_win(installed: Captured) -> None:
    with relaying(installed) as queue:
        settled(queue)
        before = read(installed, queue)
        installed.run("update t set v = 1 where id = 1")
        settled(queue)
        after = read(installed, queue)
        queue.tick()
        (event,) = [e for e in installed.batches(queue) if e.op == "u"]
        assert before is not None and after is not None
        versions = [pack(1, read.mark.ev, SNAPSHOT) for read in (before, after)]
        assert versions[0] < event.version < versions[1]


def test_a_mark_does_not_count_while_an_older_writer_runs(installed: Captured) -> None:
    # Mutants, both shown here: "the sequence's value now" and "the mark just taken" beat a change they do not show.
    with relaying(installed) as queue, installed.writer() as writer:
        older = settled(queue)
        with writer.transaction():
            writer.execute("update t set v = 1 where id = 1")
            chunk = read(installed, queue)
            assert chunk is not None and '"id":1,"merchant_id":6,"v":0' in chunk.chunk.rows[0].image
            now = queue.last_value()
            newest = queue.connection.execute("select max(ev_id) from cdc.marks").fetchone()
        (event,) = [e for e in installed.batches(queue) if e.op == "u"] or installed.drain()
        assert chunk.mark == older
        assert pack(1, chunk.mark.ev, SNAPSHOT) < event.version
        assert newest is not None and pack(1, newest[0], SNAPSHOT) > event.version
        assert pack(1, now, SNAPSHOT) > event.version


def test_a_tick_bounds_no_snapshot(installed: Captured) -> None:
    """Mutant: the sequence's value at the newest tick with xmax ≤ xmin(S), the other rule that looks right.

    A tick's xmax is the transaction after the last that has ended. That one may run, and have drawn its ev_id.
    """
    assert wait_until(lambda: _misled(installed), 30, pause=0)


def _misled(captured: Captured) -> bool:
    """True when the chunk at the tick's value beats a change it does not show, and at the mark loses against it.

    Other databases' transactions share the numbers: when one of them ends in between there is nothing to see.
    """
    with relaying(captured) as queue, captured.writer() as writer:
        settled(queue)
        with writer.transaction():
            writer.execute("update t set v = v + 1 where id = 1")
            queue.tick()
            chunk = read(captured, queue)
            row = queue.connection.execute(_BY_TICK).fetchone()
        queue.tick()
        event = [event for event in captured.batches(queue) if event.op == "u"][-1]
    assert chunk is not None and row is not None
    assert pack(1, chunk.mark.ev, SNAPSHOT) < event.version
    return pack(1, row[0], SNAPSHOT) > event.version


_BY_TICK = """
select coalesce(max(tick_event_seq), 0) from pgq.tick
where txid_snapshot_xmax(tick_snapshot) <= txid_snapshot_xmin(txid_current_snapshot())
"""


def test_without_any_valid_mark_the_snapshot_waits_and_names_whom_for(captured: Captured) -> None:
    captured.run("create table t (id bigint primary key, merchant_id integer)", "create table u (id integer)")
    with captured.writer() as writer, writer.transaction():
        writer.execute("insert into u values (1)")
        captured.install(t="merchant_id")
        with relaying(captured) as queue:
            assert read_chunk(queue, captured.tables[0], None) is None
            pid = str(writer.info.backend_pid)
            assert wait_until(lambda: pid in rows.oldest_writer(queue.connection), 20, pause=0.1)
    with relaying(captured) as queue:
        settled(queue)
        assert read_chunk(queue, captured.tables[0], None) is not None


def test_a_mark_is_taken_outside_of_transactions_and_old_ones_go(installed: Captured) -> None:
    with relaying(installed) as queue:
        with queue.connection.transaction(), pytest.raises(ValueError, match="outside"):
            take_mark(queue.connection)
        marks = [take_mark(queue.connection) for _ in range(5)] + [settled(queue)]
        assert all(a.ev < b.ev and a.txid < b.txid for a, b in itertools.pairwise(marks))
        newest = take_mark(queue.connection)
        kept = queue.connection.execute("select ev_id from cdc.marks order by 1").fetchall()
        assert kept[-1] == (newest.ev,) and kept[:-1] in ([], [(marks[-1].ev,)])


def test_snapshots_and_changes_in_any_order_give_the_table(installed: Captured) -> None:
    """Writers, long transactions, deletes and rows without any event; then everything applied in shuffled orders.

    Mutant: the mark just taken instead of the newest valid one (see above) fails in nearly every run.
    """
    stop = threading.Event()
    threads = [threading.Thread(target=_write, args=(installed, number, stop)) for number in range(4)]
    messages: list[tuple[int, int, int | None]] = []
    with relaying(installed) as queue:
        settled(queue)
        for thread in threads:
            thread.start()
        for _ in range(40):
            messages += _chunk_messages(read(installed, queue))
            queue.tick()
            messages += _event_messages(installed, queue)
            stop.wait(0.03)
        stop.set()
        for thread in threads:
            thread.join()
        queue.tick()
        messages += _event_messages(installed, queue)
        table = queue.connection.execute("select id, v from public.t").fetchall()
    assert sum(version & 4 == 4 for version, _, _ in messages) > 100
    for seed in range(10):
        random.Random(seed).shuffle(messages)
        assert _applied(messages) == {row[0]: row[1] for row in table}


def _write(captured: Captured, number: int, stop: threading.Event) -> None:
    chance = random.Random(number)
    with captured.writer() as writer:
        while not stop.is_set():
            try:
                with writer.transaction(force_rollback=chance.random() < 0.1):
                    for _ in range(chance.choice([1, 1, 2, 4])):
                        _change(writer, chance)
                        stop.wait(chance.random() * 0.15 if number < 2 and chance.random() < 0.3 else 0)
            except psycopg.errors.DeadlockDetected:
                continue


def _change(writer: psycopg.Connection[tuple[object, ...]], chance: random.Random) -> None:
    id, v, kind = chance.randrange(1, 31), chance.randrange(10**6), chance.random()
    if kind < 0.3:
        writer.execute(
            "insert into t values (%s, 6, %s) on conflict (id) do update set v = excluded.v", (id, v)
        )
    elif kind < 0.7:
        writer.execute("update t set v = %s where id = %s", (v, id))
    else:
        writer.execute("delete from t where id = %s", (id,))


def _chunk_messages(read: ReadChunk | None) -> list[tuple[int, int, int | None]]:
    if read is None:
        return []
    version = pack(1, read.mark.ev, SNAPSHOT)
    return [(version, *_id_and_v(row.image)) for row in read.chunk.rows]


def _id_and_v(image: str) -> tuple[int, int | None]:
    values = image.strip("{}").split(",")
    return int(values[0].partition(":")[2]), int(values[2].partition(":")[2])


def _event_messages(captured: Captured, queue: Queue) -> list[tuple[int, int, int | None]]:
    return [
        (
            pack(1, event.ev, EVENT, event.sub),
            int(event.key["id"]),
            None if event.deleted else event.row()["v"],
        )
        for event in captured.batches(queue)
    ]


def _applied(messages: list[tuple[int, int, int | None]]) -> dict[int, int]:
    newest: dict[int, tuple[int, int | None]] = {}
    for version, id, v in messages:
        if version > newest.get(id, (0, None))[0]:
            newest[id] = (version, v)
    return {id: v for id, (_, v) in newest.items() if v is not None}


def test_chunks_follow_each_other_without_gap_or_overlap(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 7)
    captured.run(
        'create table t (n integer, "k y" text, merchant_id integer, big text, primary key (n, "k y"))',
        "insert into t select g / 4, chr(100 - g) || '''%s', g % 3, 'x' from generate_series(1, 30) g",
    )
    captured.install(t="merchant_id")
    (table,) = captured.tables
    with session(captured.source.url) as connection:
        assert rows.estimate(connection, table) == 30
        for chunk_bytes in (10**6, 100):
            monkeypatch.setattr(rows, "CHUNK_BYTES", chunk_bytes)
            seen: list[str] = []
            after, final = None, False
            while not final:
                chunk = rows.read_chunk(connection, table, after)
                seen += [row.key for row in chunk.rows]
                after, final = chunk.position, chunk.final
            with connection.transaction():
                everything = [row.key for row in rows.read_rows(connection, table)]
                some = [row.merchant for row in rows.read_rows(connection, table, "2")]
            assert len(seen) == 30 and sorted(seen) == sorted(everything)
            assert some == ["2"] * 10
