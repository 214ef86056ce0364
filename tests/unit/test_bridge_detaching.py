"""Detaching, feeding and handing over within the bridge's loop, one trouble at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import structlog

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.dispatcher import Dispatcher
from pipeline.consumer import Outcome
from pipeline.errors import FencedError, TransientError
from pipeline.lanes.claim import Finished, TurnLimits
from pipeline.ports import Books, DetachedRow, LaneStore, Request, Rereader, Verb
from tests.fakes.books import MemoryBooks
from tests.fakes.kafka import MemoryKafka, MemoryMember, MemoryRereader
from tests.fakes.lane_store import MemoryLane, MemoryLaneStore

A, B, C = "6", "7", "acme"


@dataclass(slots=True)
class Flaky:
    """In front of `inner`, some of whose calls have no answer; it is waited for by `wait`."""

    inner: Any
    away: set[str] = field(default_factory=set)
    wait: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in self.away:
            self.wait()
            raise TransientError(name)
        return cast("Callable[..., Any]", getattr(self.inner, name))


class Desk:
    """One bridge with one partition; its sink takes a turn when told to."""

    def __init__(self, *, lane_bytes: int = 100, most: int = 100) -> None:
        self.kafka = MemoryKafka(2)
        self.kafka.positions = {0: 0, 1: 0}
        self.memory = MemoryLaneStore(TurnLimits(group=5, events=10))
        self.store = Flaky(self.memory)
        self.records = MemoryBooks()
        self.books = Flaky(self.records)
        self._lane_bytes, self._most, self._asked = lane_bytes, most, 0
        self.start()
        self.rounds(2)

    def start(self) -> None:
        """The bridge before died, if there was one."""
        member = MemoryMember(self.kafka, self._most)
        self.readers = [Flaky(MemoryRereader(self.kafka, self._most)) for _ in range(2)]
        self.dispatcher = Dispatcher(
            member,
            member,
            cast(LaneStore, self.store),
            cast(Books, self.books),
            cast("list[Rereader]", self.readers),
            partitions=1,
            flow=Flow(
                lane_bytes=self._lane_bytes, pending_bytes=10**6, snapshot_bytes=10**6, pressure=lambda: 0.0
            ),
            clock=lambda: self.memory.now / 1000,
        )
        for number in (0, 1):
            self.kafka.give(number, member)

    def send(self, merchant: str, count: int = 1, value: bytes | None = b"x" * 60) -> None:
        for _ in range(count):
            self.kafka.append(0, merchant.encode(), value)

    def ask(self, lane: str, verb: Verb, to: int | None = None) -> None:
        self._asked += 1
        self.records.ask(Request(self._asked, 0, lane, verb, "because", to))
        self.rounds(4)

    def rounds(self, count: int, milliseconds: int = 300) -> None:
        for _ in range(count):
            self.memory.now += milliseconds
            self.dispatcher.run_once()

    def accept(self) -> None:
        """The sink takes whatever is due."""
        while (claim := self.memory.step().claim) is not None:
            done = [Outcome(lane.merchant, len(lane.entries), "done") for lane in claim.lanes]
            self.memory.step([Finished(claim, done)], claim=False)

    def until_closed(self) -> None:
        for _ in range(60):
            self.rounds(1)
            self.accept()
        assert self.rows == {}

    @property
    def rows(self) -> dict[str, DetachedRow]:
        return self.records.rows.get(0, {})

    def lane(self, merchant: str) -> list[int]:
        return [entry.offset for entry in self.memory.lanes[merchant].entries]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


def test_what_could_not_be_set_aside_yet_is_still_before_a_lane_that_is_detached() -> None:
    # Mutant: first_of() of events alone: the live reader passes the record over, and no cursor comes by.
    desk = Desk()
    desk.send(A, value=None)
    desk.send(A, 3)
    desk.books.away = {"set_aside"}
    desk.rounds(1)
    assert (desk.rows[A].first, desk.records.rejected) == (0, {})
    desk.books.away = set()
    desk.start()
    desk.store.away = {"reset"}
    desk.rounds(3)
    desk.store.away = set()
    desk.until_closed()
    assert list(desk.records.rejected) == [(False, 0, 0)]


def test_a_cursor_appends_nothing_while_something_is_to_be_set_aside() -> None:
    # Mutant: _feed() that appends whatever was read: who takes over reads on behind it.
    desk = Desk()
    desk.ask(A, "pause")
    desk.send(A, value=None)
    desk.send(A, 3)
    desk.rounds(2)
    desk.books.away = {"set_aside"}
    desk.ask(A, "resume")
    desk.books.away = set()
    desk.start()
    desk.until_closed()
    assert list(desk.records.rejected) == [(False, 0, 0)]


def test_what_one_reader_has_brought_waits_for_no_other() -> None:
    # Mutant: read() that ends with the first reader that fails.
    desk = Desk(lane_bytes=10**6, most=1)
    desk.ask(A, "pause")
    desk.ask(B, "pause")
    desk.send(B, 4)
    desk.send(A, 40)
    desk.rounds(44)
    desk.ask(A, "resume")
    desk.rounds(4)
    desk.ask(B, "resume")
    desk.readers[0].away = {"poll"}
    desk.rounds(8)
    assert (desk.lane(B), len(desk.dispatcher._detaching.cursors.running)) == ([0, 1, 2, 3], 2)


def test_a_bridge_of_a_paused_consumer_feeds_nothing_when_it_starts() -> None:
    # Mutants: the pause is asked for after the first round; cursors stop where the live reader is paused.
    desk = Desk(most=2)
    desk.send(A, 14)
    desk.rounds(4)
    desk.records.paused = True
    desk.rounds(4)
    desk.accept()
    desk.rounds(4)
    first = desk.rows[A].first
    for _ in range(3):
        desk.start()
        desk.rounds(4)
        desk.accept()
    assert desk.rows[A].first == first
    desk.records.paused = False
    desk.until_closed()


def silent(desk: Desk, service: Flaky, *calls: str) -> list[int]:
    """From now on these calls have no answer, which takes five seconds; when each was made."""
    made = list[int]()

    def wait() -> None:
        made.append(desk.memory.now)
        desk.memory.now += 5000

    service.wait, service.away = wait, set(calls)
    return made


def test_how_far_a_lane_is_accepted_is_not_written_behind_a_rewind() -> None:
    # It had no answer and arrives late. Mutant: it is written again under the same fence, which lets the late one pass, too.
    desk = Desk(most=2)
    desk.send(A, 20)
    desk.rounds(20)
    began = desk.dispatcher.fences()[0]
    desk.books.away = {"advance"}
    desk.accept()
    desk.rounds(5)
    desk.books.away = set()
    desk.ask(A, "rewind", to=0)
    with pytest.raises(FencedError):
        desk.records.advance(0, began, {A: 10})
    assert desk.rows[A].first == 0
    desk.until_closed()


def test_rounds_go_on_between_two_tries_of_what_is_silent() -> None:
    # Mutant: the pause counts from the beginning of the call, and is over when it ends.
    desk = Desk()
    desk.send(A)
    desk.rounds(2)
    made = silent(desk, desk.store, "acknowledged")
    desk.rounds(100, 100)
    assert len(made) < 20


def test_a_lane_of_a_topic_that_was_made_anew_does_not_swallow_what_comes() -> None:
    # Mutant: answered() that compares nothing with the partition's end: everything below the lane's is committed unseen.
    desk = Desk(lane_bytes=10**6)
    desk.memory.lanes[A] = MemoryLane(0, 5000, 5000, 0)
    desk.send(A, 3)
    desk.rounds(4)
    assert (desk.lane(A), desk.kafka.positions[0]) == ([0, 1, 2], 3)
    assert desk.rows[A].first == 0
    desk.until_closed()


@pytest.mark.parametrize("before", range(1, 7))
def test_what_a_sink_has_accepted_when_somebody_asks_does_not_come_again(before: int) -> None:
    # Mutant: carry_out() that does not hear first: what was accepted since the last time counts as pending.
    desk = Desk()
    desk.send(A, 1)
    desk.rounds(before, 400)
    desk.accept()
    desk.records.ask(Request(1, 0, A, "pause", "because"))
    while A not in desk.rows:
        desk.rounds(1, 400)
    assert desk.rows[A].first == 1
