"""What a bridge may rely on in its books, asked of those in memory and of the control database alike."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from devstack.postgres import drop_database
from devstack.process import wait_until
from pipeline.bridge.bookkeeping import Bookkeeping
from pipeline.consumer import Rejection
from pipeline.control import fences
from pipeline.control.database import ControlDatabase, migrate
from pipeline.control.fences import Hold
from pipeline.errors import FencedError, TransientError
from pipeline.ports import Books, DetachedRow, Detachment, Request, SweepRecord, Takeover, Tenure
from tests.conftest import at, unique
from tests.fakes.books_lab import CONSUMER, TOPICS, Audited, BooksLab, ControlLab, MemoryLab, waiting_sessions
from tests.fakes.sweeps import sweep_of

CHANGES, ROWS, ELSEWHERE = 1, 5, 2  # the same partition of both topics, and another one
FULL = "full"


@pytest.fixture(scope="module")
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated control database for all tests of this module."""
    admin, url = request.getfixturevalue("postgres_url"), request.getfixturevalue("variables")
    name = unique("control")
    with psycopg.connect(admin, autocommit=True) as session:
        session.execute(f'create database "{name}" owner pipeline'.encode())
    database = ControlDatabase(at(url["CONTROL_DATABASE_URL"], name))
    migrate(database)
    database.close()
    yield at(url["CONTROL_DATABASE_URL"], name)
    drop_database(admin, name)


@pytest.fixture(params=["memory", pytest.param("control", marks=pytest.mark.integration)])
def lab(request: pytest.FixtureRequest) -> Iterator[BooksLab]:
    if request.param == "memory":
        yield MemoryLab()
    else:
        yield from control_lab(request.getfixturevalue("database_url"))


@pytest.fixture
def control(database_url: str) -> Iterator[ControlLab]:
    yield from control_lab(database_url)


def control_lab(url: str) -> Iterator[ControlLab]:
    """One on an empty control database, which waits for no lock for long."""
    database = ControlDatabase(f"{url}?options=-c%20lock_timeout%3D10s")
    with database.transaction() as connection:
        connection.execute(
            "truncate detached, lane_requests, paused_consumers, sweeps, fences, actions, rejected"
            " restart identity cascade"
        )
        connection.execute("alter sequence incarnations restart")
    yield ControlLab(database)
    database.close()


def held(lab: BooksLab, partition: int = CHANGES) -> int:
    """Take a partition over; its fence."""
    return lab.books.take_over([partition])[partition].tenure.fence


def full(lane: str, first: int = 3) -> Detachment:
    return Detachment(lane, first, "running", FULL)


def row(lane: str, incarnation: int, first: int = 3, until: int | None = None) -> DetachedRow:
    return DetachedRow(lane, first, until, incarnation, "running", FULL)


def record(offset: int, number: int = 1, partition: int = CHANGES) -> SweepRecord:
    return SweepRecord(partition, offset, sweep_of(80, name=f"1:{number}", merchant="6", why="move"))


def test_a_take_over_draws_the_next_fence_of_each_partition(lab: BooksLab) -> None:
    # Mutant: one counter for all partitions, or one per topic.
    nothing = Takeover(Tenure(1, 0), [])
    assert plain(lab.books.take_over([CHANGES, ROWS])) == {CHANGES: nothing, ROWS: nothing}
    assert plain(lab.books.take_over([CHANGES, ELSEWHERE])) == {
        CHANGES: Takeover(Tenure(2, 0), []),
        ELSEWHERE: nothing,
    }
    assert held(lab, ROWS) == held(lab, ELSEWHERE) == 2


def plain(takeovers: object) -> dict[int, Takeover]:
    assert isinstance(takeovers, dict)
    return {
        partition: Takeover(one.tenure, sorted(one.rows, key=lambda row: row.lane))
        for partition, one in takeovers.items()
    }


def test_a_take_over_opens_the_lanes_of_its_partitions_and_tells_the_newest_incarnation(
    lab: BooksLab,
) -> None:
    # Mutants: `until` stays; the counter's value is not told, or that of the partition's lanes; lanes of other partitions.
    books, fence, other = lab.books, held(lab), held(lab, ROWS)
    assert list(books.detach(CHANGES, fence, [full("6"), full("7", 4)])) == [1, 2]
    assert list(books.detach(ROWS, other, [full("s.6", 8)])) == [3]
    books.hand_over(CHANGES, fence, {"6": 20})
    assert lab.rows(CHANGES) == {"6": row("6", 1, until=20), "7": row("7", 2, 4)}
    assert plain(books.take_over([CHANGES])) == {
        CHANGES: Takeover(Tenure(2, 3), [row("6", 1), row("7", 2, 4)])
    }
    assert lab.rows(CHANGES) == {"6": row("6", 1), "7": row("7", 2, 4)}
    assert lab.rows(ROWS) == {"s.6": row("s.6", 3, 8)}


Write = Callable[[Books, int], object]
WRITES: dict[str, Write] = {
    "detach": lambda books, fence: books.detach(CHANGES, fence, [full("6", 1)]),
    "detach another": lambda books, fence: books.detach(CHANGES, fence, [full("7")]),
    "hand over": lambda books, fence: books.hand_over(CHANGES, fence, {"6": 9}),
    "advance": lambda books, fence: books.advance(CHANGES, fence, {"6": 9}),
    "close": lambda books, fence: books.close(CHANGES, fence, ["6"]),
    "answer": lambda books, fence: books.answer(CHANGES, fence, 1, "no"),
    "wait for a sweep": lambda books, fence: books.wait_sweeps(CHANGES, fence, [record(5)]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nothing_is_written_under_an_older_fence(lab: BooksLab, write: Write) -> None:
    # Mutants: the fence is not checked, or only in the row of the lane: what has no row yet is written.
    books, fence = lab.books, held(lab)
    books.detach(CHANGES, fence, [full("6")])
    lab.ask(CHANGES, "6", "pause")
    newer = held(lab)
    with pytest.raises(FencedError):
        write(books, fence)
    assert lab.rows(CHANGES) == {"6": row("6", 1)}
    assert [request.verb for request in books.requests([CHANGES])] == ["pause"]
    assert list(books.waiting_sweeps(CHANGES)) == []
    write(books, newer)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nothing_is_written_in_a_partition_that_nobody_took_over(lab: BooksLab, write: Write) -> None:
    # Mutant: without a fence everything is allowed.
    held(lab, ELSEWHERE)
    with pytest.raises(FencedError):
        write(lab.books, 1)
    assert lab.rows(CHANGES) == {}


def test_a_refused_write_uses_nothing_up_and_others_go_on(lab: BooksLab) -> None:
    books, fence = lab.books, held(lab)
    elsewhere = held(lab, ELSEWHERE)
    newer = held(lab)
    with pytest.raises(FencedError):
        books.detach(CHANGES, fence, [full("6")])
    assert list(books.detach(ELSEWHERE, elsewhere, [full("8")])) == [1]
    assert list(books.detach(CHANGES, newer, [full("6")])) == [2]


def test_a_lane_detached_anew_is_another_incarnation_and_open_again(lab: BooksLab) -> None:
    # Mutants: the incarnation stays; it is the lane's own next one, and comes again once its row has gone; `until` stays.
    books, fence = lab.books, held(lab)
    books.detach(CHANGES, fence, [full("6"), full("7")])
    books.hand_over(CHANGES, fence, {"6": 20, "7": 20})
    assert list(books.detach(CHANGES, fence, [Detachment("6", 1, "paused", "asked")])) == [3]
    assert lab.rows(CHANGES)["6"] == DetachedRow("6", 1, None, 3, "paused", "asked")
    books.close(CHANGES, fence, ["6", "7"])
    assert list(books.detach(CHANGES, fence, [full("7")])) == [4]


def test_a_lane_s_incarnation_is_in_the_place_of_its_detachment(lab: BooksLab) -> None:
    books, fence = lab.books, held(lab)
    lanes = [full(lane) for lane in ("9", "b", "7", "a", "s.6", "6")]
    drawn = books.detach(CHANGES, fence, lanes)
    assert [lab.rows(CHANGES)[one.lane].incarnation for one in lanes] == list(drawn)
    assert len(set(drawn)) == len(lanes)


def test_first_only_moves_up_until_the_lane_is_detached_anew(lab: BooksLab) -> None:
    books, fence = lab.books, held(lab)
    books.detach(CHANGES, fence, [full("6"), full("7")])
    books.advance(CHANGES, fence, {"6": 9, "7": 5, "gone": 1})
    books.advance(CHANGES, fence, {"6": 8})
    assert {lane: one.first for lane, one in lab.rows(CHANGES).items()} == {"6": 9, "7": 5}
    books.detach(CHANGES, fence, [full("6", 2)])
    assert lab.rows(CHANGES)["6"].first == 2


def test_only_the_lanes_that_are_named_are_handed_over_and_closed(lab: BooksLab) -> None:
    books, fence, other = lab.books, held(lab), held(lab, ELSEWHERE)
    books.detach(CHANGES, fence, [full("6"), full("7")])
    books.detach(ELSEWHERE, other, [full("6")])
    books.hand_over(CHANGES, fence, {"6": 20, "gone": 20})
    assert [one.until for one in lab.rows(CHANGES).values()] == [20, None]
    books.close(CHANGES, fence, ["6", "gone"])
    assert lab.rows(CHANGES) == {"7": row("7", 2)}
    assert lab.rows(ELSEWHERE) == {"6": row("6", 3)}


def test_requests_come_in_the_order_they_were_made_to_who_holds_the_partition(lab: BooksLab) -> None:
    books = lab.books
    asked = [
        lab.ask(CHANGES, "6", "pause"),
        lab.ask(ROWS, "s.6", "resync"),
        lab.ask(CHANGES, "6", "rewind", 4),
        lab.ask(ELSEWHERE, "8", "skip", 7, 5),
    ]
    assert list(books.requests([ROWS, CHANGES])) == [
        Request(asked[0], CHANGES, "6", "pause", "because"),
        Request(asked[1], ROWS, "s.6", "resync", "because"),
        Request(asked[2], CHANGES, "6", "rewind", "because", 4),
    ]
    assert list(books.requests([ELSEWHERE])) == [Request(asked[3], ELSEWHERE, "8", "skip", "because", 7, 5)]


def test_a_request_ends_with_the_detachment_that_carries_it_out(lab: BooksLab) -> None:
    # Mutant: the request ends in a transaction of its own; action or end are missing.
    books, fence = lab.books, held(lab)
    first, second = lab.ask(CHANGES, "6", "pause"), lab.ask(CHANGES, "7", "rewind", 4)
    waiting = lab.ask(CHANGES, "6", "resume")
    lanes = [
        full("8"),
        Detachment("6", 3, "paused", "because", first),
        Detachment("7", 4, "running", "because", second),
    ]
    assert list(books.detach(CHANGES, fence, lanes)) == [1, 2, 3]
    assert [request.id for request in books.requests([CHANGES])] == [waiting]
    assert lab.refusal(first) is lab.refusal(second) is None
    assert lab.audit() == [
        Audited("lanes.pause", "6", "because", 3, 2),
        Audited("lanes.rewind", "7", "because", 4, 3),
    ]


def test_the_audit_says_what_a_lane_was_parked_for(control: ControlLab) -> None:
    # Mutant: the row as it is afterwards.
    fence = held(control)
    control.books.detach(CHANGES, fence, [Detachment("6", 3, "parked", "poison")])
    release, pause = control.ask(CHANGES, "6", "release"), control.ask(CHANGES, "7", "pause")
    lanes = [
        Detachment("6", 3, "running", "release: mended", release),
        Detachment("7", 3, "paused", "pause: because", pause),
    ]
    control.books.detach(CHANGES, fence, lanes)
    with control.database.transaction() as connection:
        found = connection.execute("SELECT details ->> 'was' FROM actions ORDER BY id").fetchall()
    assert found == [("parked: poison",), (None,)]


def test_a_request_withdrawn_meanwhile_is_not_carried_out(lab: BooksLab) -> None:
    # Mutant: how many requests ended is not compared with how many should.
    books, fence = lab.books, held(lab)
    books.detach(CHANGES, fence, [full("6")])
    asked = lab.ask(CHANGES, "6", "skip", 8, 3)
    lab.withdraw(asked)
    with pytest.raises(TransientError):
        books.detach(CHANGES, fence, [full("7"), Detachment("6", 8, "running", "because", asked)])
    assert lab.rows(CHANGES) == {"6": row("6", 1)}
    assert "withdrawn" in (lab.refusal(asked) or "")
    assert lab.audit() == []


def test_a_refused_request_says_why_and_changes_nothing(lab: BooksLab) -> None:
    books, fence = lab.books, held(lab)
    asked = lab.ask(CHANGES, "6", "resume")
    books.answer(CHANGES, fence, asked, "lane 6 is not paused")
    books.answer(CHANGES, fence, asked, "again")
    assert list(books.requests([CHANGES])) == []
    assert lab.refusal(asked) == "lane 6 is not paused"
    assert (lab.rows(CHANGES), lab.audit()) == ({}, [])


def test_a_whole_consumer_can_be_held(lab: BooksLab) -> None:
    held_then = []
    for hold in (True, False):
        held_then.append(lab.books.consumer_paused())
        lab.hold_consumer(hold)
    assert [*held_then, lab.books.consumer_paused()] == [False, True, False]


def test_what_is_set_aside_keeps_its_first_reason(lab: BooksLab) -> None:
    change = Rejection("6", 1, 7, "no value", b"")
    row_ = replace(change, snapshot=True, reason="another topic")
    lab.books.set_aside([change, row_])
    lab.books.set_aside([replace(change, reason="again"), replace(change, offset=8)])
    assert lab.set_aside() == {
        (False, 1, 7): "no value",
        (True, 1, 7): "another topic",
        (False, 1, 8): "no value",
    }
    lab.books.set_aside([])


@pytest.mark.integration
def test_a_reason_that_no_database_takes_stops_nobody(control: ControlLab) -> None:
    # Mutant: rejected.store() with the reason as the handler gave it: no record is set aside any more.
    control.books.set_aside([Rejection("6", 1, 7, "bad \0 and \ud800", b"")])
    assert control.set_aside() == {(False, 1, 7): "bad ? and ?"}


def test_sweeps_wait_until_they_are_passed(lab: BooksLab) -> None:
    # Mutant: `pass_sweeps` leaves those that wait.
    books, fence, other = lab.books, held(lab), held(lab, ROWS)
    books.wait_sweeps(CHANGES, fence, [record(9, 2), record(5, 1)])
    books.wait_sweeps(CHANGES, fence, [record(5, 1)])
    books.wait_sweeps(ROWS, other, [record(4, 1, ROWS)])
    assert list(books.waiting_sweeps(CHANGES)) == [record(5, 1), record(9, 2)]
    held(lab)  # a bridge that comes later finds them
    books.pass_sweeps([record(5, 1), record(7, 3)])
    books.pass_sweeps([record(5, 1)])
    assert list(books.waiting_sweeps(CHANGES)) == [record(9, 2)]
    assert list(books.waiting_sweeps(ROWS)) == [record(4, 1, ROWS)]
    assert lab.passed() == {(record(5, 1).sweep.id, CHANGES, 5), (record(7, 3).sweep.id, CHANGES, 7)}


def test_a_sweep_published_twice_waits_twice(lab: BooksLab) -> None:
    books, fence = lab.books, held(lab)
    books.wait_sweeps(CHANGES, fence, [record(5), record(6)])
    books.pass_sweeps([record(5)])
    assert list(books.waiting_sweeps(CHANGES)) == [record(6)]
    books.pass_sweeps([record(6)])
    assert list(books.waiting_sweeps(CHANGES)) == []
    assert lab.passed() == {(record(5).sweep.id, CHANGES, 5)}


def test_a_sweep_that_was_passed_does_not_begin_to_wait(lab: BooksLab) -> None:
    # A transaction without an answer that arrives late. Mutant: without the look at what was passed.
    books, fence = lab.books, held(lab)
    books.pass_sweeps([record(5)])
    books.wait_sweeps(CHANGES, fence, [record(5), record(7, 2)])
    assert list(books.waiting_sweeps(CHANGES)) == [record(7, 2)]


# What only the control database can show.


def test_consumers_do_not_see_each_other(control: ControlLab) -> None:
    # Mutant: any of the queries without its consumer.
    books, other = control.books, control.other
    fence = held(control)
    assert other.take_over([CHANGES])[CHANGES].tenure.fence == 1
    books.detach(CHANGES, fence, [full("6")])
    assert list(other.detach(CHANGES, 1, [full("6", 1)])) == [2]
    for write in (
        lambda: other.hand_over(CHANGES, 1, {"6": 9}),
        lambda: other.advance(CHANGES, 1, {"6": 8}),
        lambda: other.close(CHANGES, 1, ["6"]),
        lambda: other.wait_sweeps(CHANGES, 1, [record(5)]),
        lambda: other.take_over([CHANGES]),
    ):
        write()
        assert control.rows(CHANGES) == {"6": row("6", 1)}
    asked = control.ask(CHANGES, "6", "pause")
    control.hold_consumer(True)
    assert (list(other.requests([CHANGES])), other.consumer_paused()) == ([], False)
    assert list(books.waiting_sweeps(CHANGES)) == []
    books.wait_sweeps(CHANGES, fence, [record(5)])
    other.pass_sweeps([record(5)])
    assert list(books.waiting_sweeps(CHANGES)) == [record(5)]
    assert [request.id for request in books.requests([CHANGES])] == [asked]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.integration
def test_a_bridge_that_knows_nothing_of_detached_lanes_takes_nothing_over(
    control: ControlLab, known: bool
) -> None:
    # Mutant: the column has a default: such a bridge reads on behind the rows, and what is between is lost.
    if known:
        held(control)
    with pytest.raises(psycopg.errors.NotNullViolation), control.database.transaction() as connection:
        connection.execute(
            "INSERT INTO fences (consumer, topic, partition, fence) VALUES (%s, %s, %s, 1)"
            " ON CONFLICT (consumer, topic, partition) DO UPDATE SET fence = fences.fence + 1 RETURNING fence",
            (CONSUMER, *TOPICS.place(CHANGES)),
        )


def test_a_take_over_waits_for_what_its_predecessor_has_begun(
    control: ControlLab, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutants: the fence is read without FOR SHARE; the rows, or the counter, are read with the fence in one statement.
    monkeypatch.setattr(fences, "PATIENCE", "60s")
    fence, second = held(control), ControlDatabase(database_url)
    taken: list[Takeover] = []
    after = threading.Thread(target=lambda: taken.append(_take_over(second)))
    with fences.held(control.database, Hold(CONSUMER, *TOPICS.place(CHANGES), fence)):
        after.start()
        assert wait_until(lambda: waiting_sessions(database_url) == 1, 10)
        control.books.detach(CHANGES, fence, [full("6")])
        assert taken == []
    after.join(10)
    assert taken == [Takeover(Tenure(2, 1), [row("6", 1)])]


def _take_over(database: ControlDatabase) -> Takeover:
    with closing(database):
        return Bookkeeping(database, CONSUMER, TOPICS).take_over([CHANGES])[CHANGES]


def test_a_bridge_that_stands_still_within_a_transaction_holds_nobody_up(
    control: ControlLab, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutant: no idle_in_transaction_session_timeout: the take-over waits as long as the other stands still.
    monkeypatch.setattr(fences, "PATIENCE", "200ms")
    fence = held(control)
    still = ControlDatabase(database_url)
    hold = Hold(CONSUMER, *TOPICS.place(CHANGES), fence)
    with pytest.raises(TransientError, match="idle-in-transaction"), fences.held(still, hold) as connection:
        assert held(control) == fence + 1
        connection.execute("SELECT 1")
    with pytest.raises(FencedError), fences.held(still, hold):
        pass
    still.close()
