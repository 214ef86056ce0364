"""What people ask of lanes and see of them, and that nothing but their acceptance ends a detached lane."""

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import psycopg
import pytest

from devstack.process import wait_until
from pipeline.bridge.bookkeeping import Bookkeeping
from pipeline.bridge.topics import Topics
from pipeline.control import actions, detached, fences, requests, sweeps
from pipeline.control.database import ControlDatabase, migrate
from pipeline.control.requests import Asked, Outcome
from pipeline.control.sweeps import Passage
from pipeline.ports import Detachment, State, SweepRecord, Verb
from pipeline.settings import Topic
from tests.fakes.books_lab import waiting_sessions
from tests.fakes.sweeps import sweep_of

pytestmark = pytest.mark.integration

TOPICS = Topics(("datastream", "datastream.snapshot"), 4)
READ = [Topic(topic=name, partitions=4) for name in TOPICS.names]
CHANGES, ROWS = 1, 5


@pytest.fixture
def database(control_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlDatabase]:
    monkeypatch.setattr(
        fences, "PATIENCE", "60s"
    )  # tests hold transactions open, on a machine that may be busy
    made = ControlDatabase(control_url)
    migrate(made)
    yield made
    made.close()


@pytest.fixture
def books(database: ControlDatabase) -> Bookkeeping:
    return Bookkeeping(database, "search", TOPICS)


def fence(books: Bookkeeping, partition: int = CHANGES) -> int:
    return books.take_over([partition])[partition].tenure.fence


def pause(lane: str, **details: object) -> Asked:
    return Asked("search", "datastream", 1, lane, "pause", "ann", "too loud", details=details)


def audit(database: ControlDatabase) -> list[tuple[str, str, str, str, dict[str, object]]]:
    with database.transaction() as connection:
        return connection.execute(
            "SELECT actor, verb, subject, reason, details FROM actions ORDER BY id"
        ).fetchall()


def test_a_request_waits_and_then_says_what_became_of_it(
    database: ControlDatabase, books: Bookkeeping
) -> None:
    done, refused, withdrawn = requests.ask(database, [pause("6"), pause("7"), pause("8")])
    assert requests.outcome(database, done) == Outcome(done, finished=False, refusal=None)
    waiting = requests.open_requests(database, "search")
    assert [(one.id, one.lane, one.verb, one.actor, one.reason) for one in waiting] == [
        (done, "6", "pause", "ann", "too loud"),
        (refused, "7", "pause", "ann", "too loud"),
        (withdrawn, "8", "pause", "ann", "too loud"),
    ]
    held = fence(books)
    books.detach(CHANGES, held, [Detachment("6", 3, "paused", "too loud", done)])
    books.answer(CHANGES, held, refused, "there is no such lane")
    assert requests.withdraw(database, withdrawn, actor="bob")
    assert [requests.outcome(database, id) for id in (done, refused, withdrawn)] == [
        Outcome(done, finished=True, refusal=None),
        Outcome(refused, finished=True, refusal="there is no such lane"),
        Outcome(withdrawn, finished=True, refusal="withdrawn by bob"),
    ]
    assert requests.open_requests(database, "search") == []


def test_only_an_open_request_can_be_withdrawn(database: ControlDatabase, books: Bookkeeping) -> None:
    # Mutant: whatever has that id is withdrawn, and the outcome says so of what was carried out.
    [done] = requests.ask(database, [pause("6")])
    books.detach(CHANGES, fence(books), [Detachment("6", 3, "paused", "too loud", done)])
    assert not requests.withdraw(database, done, actor="bob")
    assert not requests.withdraw(database, done + 1, actor="bob")
    assert requests.outcome(database, done) == Outcome(done, finished=True, refusal=None)
    assert requests.outcome(database, done + 1) is None


def test_what_was_carried_out_is_audited_with_what_they_were_shown(
    database: ControlDatabase, books: Bookkeeping
) -> None:
    [asked] = requests.ask(database, [pause("6", records=7, first=1)])
    books.detach(CHANGES, fence(books), [Detachment("6", 3, "paused", "too loud", asked)])
    details = {"records": 7, "request": asked, "first": 3, "incarnation": 1}
    assert audit(database) == [("ann", "lanes.pause", "search 6", "too loud", details)]


def test_ended_requests_are_forgotten_after_a_week(database: ControlDatabase, books: Bookkeeping) -> None:
    # Mutants: nothing is forgotten; open ones are, too.
    old, waits, young = requests.ask(database, [pause("6"), pause("7"), pause("8")])
    for id in (old, young):
        requests.withdraw(database, id, actor="ann")
    with database.transaction() as connection:
        connection.execute(
            "UPDATE lane_requests SET finished_at = finished_at - interval '169 hours' WHERE id = %s", (old,)
        )
        connection.execute("UPDATE lane_requests SET requested_at = requested_at - interval '1 year'")
    requests.ask(database, [pause("9")])
    assert [requests.outcome(database, id) is None for id in (old, waits, young)] == [True, False, False]


@pytest.mark.parametrize(("verb", "offset", "expected"), [("skip", 5, None), ("skip", None, 5), ("rewind", None, None)])  # fmt: skip
def test_a_request_that_does_not_say_where_cannot_be_made(
    verb: Verb, offset: int | None, expected: int | None
) -> None:
    with pytest.raises(ValueError, match=verb):
        Asked("search", "datastream", 1, "6", verb, "ann", "", offset, expected)


def test_a_consumer_is_held_and_let_go_once_each_and_both_are_audited(database: ControlDatabase) -> None:
    assert requests.paused(database, "search") is None
    assert not requests.resume_consumer(database, "search", actor="ann", reason="")
    assert requests.pause_consumer(database, "search", actor="ann", reason="sink moves")
    assert not requests.pause_consumer(database, "search", actor="bob", reason="me too")
    pause_ = requests.paused(database, "search")
    assert pause_ is not None
    assert (pause_.consumer, pause_.actor, pause_.reason) == ("search", "ann", "sink moves")
    assert requests.paused(database, "warehouse") is None
    assert requests.resume_consumer(database, "search", actor="bob", reason="moved")
    assert requests.paused(database, "search") is None
    assert audit(database) == [
        ("ann", "lanes.pause", "search", "sink moves", {}),
        ("bob", "lanes.resume", "search", "moved", {}),
    ]


def test_detached_lanes_are_listed_all_or_some(database: ControlDatabase, books: Bookkeeping) -> None:
    held, rows = fence(books), fence(books, ROWS)
    states: list[State] = ["paused", "parked", "running"]
    books.detach(CHANGES, held, [Detachment(str(n), n, state, "so") for n, state in enumerate(states)])
    books.detach(ROWS, rows, [Detachment("s.0", 9, "paused", "so")])
    books.hand_over(CHANGES, held, {"2": 20})
    listed = detached.rows(database, "search")
    assert [(one.topic, one.partition, one.lane, one.first, one.until, one.state) for one in listed] == [
        ("datastream", 1, "0", 0, None, "paused"),
        ("datastream", 1, "1", 1, None, "parked"),
        ("datastream", 1, "2", 2, 20, "running"),
        ("datastream.snapshot", 1, "s.0", 9, None, "paused"),
    ]
    assert detached.rows(database, "search", lanes=["0", "s.0"]) == [listed[0], listed[3]]
    assert detached.rows(database, "search", states=["parked", "running"]) == listed[1:3]
    assert detached.rows(database, "search", limit=1) == listed[:1]
    assert detached.rows(database, "warehouse") == []


def test_a_lane_keeps_its_time_while_it_keeps_its_state(
    database: ControlDatabase, books: Bookkeeping
) -> None:
    # Mutant: `since` is that of the newest incarnation: a lane parked for a week seems to be so for a minute.
    held = fence(books)

    def since(state: State) -> object:
        books.detach(CHANGES, held, [Detachment("6", 3, state, "so")])
        return detached.rows(database, "search")[0].since

    parked = since("parked")
    assert since("parked") == parked
    running = since("running")
    assert running != parked
    assert since("running") == running


def test_nothing_but_acceptance_removes_a_detached_lane(
    database: ControlDatabase, books: Bookkeeping
) -> None:
    # Mutant: a foreign key that cascades, an upkeep that looks at age.
    held = fence(books)
    states: list[State] = ["paused", "parked", "running"]
    books.detach(CHANGES, held, [Detachment(state, 3, state, "so") for state in states])
    books.hand_over(CHANGES, held, {"running": 3})
    sweep = sweep_of(80)
    books.wait_sweeps(CHANGES, held, [SweepRecord(CHANGES, 5, sweep)])
    [asked] = requests.ask(database, [pause("paused")])
    requests.pause_consumer(database, "search", actor="ann", reason="")
    with database.transaction() as connection:
        connection.execute("UPDATE detached SET since = since - interval '10 years'")
    before = detached.rows(database, "search")
    books.advance(CHANGES, held, dict.fromkeys(states, 9))
    advanced = [(one.lane, one.first) for one in detached.rows(database, "search")]
    assert advanced == [(one.lane, 9) for one in before]

    books.pass_sweeps([SweepRecord(CHANGES, 5, sweep)])
    sweeps.forget_runs(database, "search")
    with database.transaction() as connection:
        connection.execute("UPDATE sweeps SET seen_at = seen_at - interval '10 years'")
    assert sweeps.expire(database, {"search": READ}, 1.0) == 1
    requests.withdraw(database, asked, actor="ann")
    with database.transaction() as connection:
        connection.execute("UPDATE lane_requests SET finished_at = finished_at - interval '10 years'")
    requests.ask(database, [pause("other")])
    requests.resume_consumer(database, "search", actor="ann", reason="")
    actions.record(database, actor="ann", verb="start", subject="search")
    books.close(CHANGES, fence(books), ["other"])
    fence(books, ROWS)
    assert [(one.lane, one.first) for one in detached.rows(database, "search")] == advanced


def test_a_sweep_that_detached_lanes_have_not_reached_is_kept(
    database: ControlDatabase, books: Bookkeeping
) -> None:
    # Mutant: `expire` does not look at those that wait: it is gone, its record is committed past, and nobody sweeps.
    waits, gone = (SweepRecord(CHANGES, at, sweep_of(80, name=str(at))) for at in (5, 6))
    books.wait_sweeps(CHANGES, fence(books), [waits, gone])
    books.pass_sweeps([gone])
    with database.transaction() as connection:
        connection.execute("UPDATE sweeps SET seen_at = seen_at - interval '1 year'")
    assert sweeps.expire(database, {"search": READ}, 1.0) == 1
    assert list(books.waiting_sweeps(CHANGES)) == [waits]


def test_a_sweep_waited_for_while_it_is_forgotten_is_kept(
    database: ControlDatabase, books: Bookkeeping, control_url: str
) -> None:
    # Mutant: `expire` in one statement: it deletes by what it saw before it waited for the lock.
    held, record = fence(books), old_sweep(database)
    forgetting = threading.Thread(target=lambda: forget(control_url))
    with database.transaction():
        books.wait_sweeps(CHANGES, held, [record])
        forgetting.start()
        assert wait_until(lambda: waiting_sessions(control_url) == 1, 10)
    forgetting.join(10)
    assert list(books.waiting_sweeps(CHANGES)) == [record]


def test_a_sweep_that_is_found_is_not_forgotten_before_it_is_waited_for(
    database: ControlDatabase, books: Bookkeeping, control_url: str
) -> None:
    # Mutant: a sweep that is there is left alone, not locked: what is written next refers to nothing.
    held, record = fence(books), old_sweep(database)
    failed: list[BaseException] = []

    def wait() -> None:
        with closing(ControlDatabase(control_url)) as own:
            try:
                Bookkeeping(own, "search", TOPICS).wait_sweeps(CHANGES, held, [record])
            except psycopg.Error as error:
                failed.append(error)

    threads = [threading.Thread(target=wait), threading.Thread(target=lambda: forget(control_url))]
    with database.transaction() as connection:
        connection.execute("LOCK TABLE sweep_waits IN SHARE MODE")
        for blocked, thread in enumerate(threads, 1):
            thread.start()
            assert wait_until(partial(blocked_are, control_url, blocked), 10)
    for thread in threads:
        thread.join(10)
    assert (failed, list(books.waiting_sweeps(CHANGES))) == ([], [record])


def blocked_are(url: str, count: int) -> bool:
    return waiting_sessions(url) == count


def old_sweep(database: ControlDatabase) -> SweepRecord:
    """One that another consumer has passed a year ago."""
    record = SweepRecord(CHANGES, 5, sweep_of(80))
    sweeps.passed(database, "warehouse", [Passage(record.sweep, "datastream", 1, 5)])
    with database.transaction() as connection:
        connection.execute("UPDATE sweeps SET seen_at = seen_at - interval '1 year'")
    return record


def forget(url: str) -> None:
    """What upkeep does."""
    with closing(ControlDatabase(url)) as own:
        sweeps.expire(own, {"search": READ}, 1.0)
