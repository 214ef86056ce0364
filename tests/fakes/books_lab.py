"""The same hands on both books: what people do to them, and what stands in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import psycopg

from pipeline.bridge.bookkeeping import Bookkeeping
from pipeline.bridge.topics import Topics
from pipeline.control import detached, requests
from pipeline.control.database import ControlDatabase
from pipeline.control.requests import Asked
from pipeline.ports import Books, DetachedRow, Request, Verb
from tests.fakes.books import MemoryBooks

CONSUMER, ACTOR = "search", "ann"
TOPICS = Topics(("datastream", "datastream.snapshot"), 4)


class Audited(NamedTuple):
    """An action: the verb, the lane, the reason, from where on and under which incarnation the lane goes on."""

    verb: str
    lane: str
    reason: str
    first: int
    incarnation: int


class BooksLab(ABC):
    """Books and their surroundings."""

    books: Books

    @abstractmethod
    def rows(self, partition: int) -> dict[str, DetachedRow]:
        """The rows of a partition's detached lanes."""

    @abstractmethod
    def ask(
        self, partition: int, lane: str, verb: Verb, offset: int | None = None, expected: int | None = None
    ) -> int:
        """A person asks; the request's number."""

    @abstractmethod
    def withdraw(self, request: int) -> None:
        """They ask no more."""

    @abstractmethod
    def refusal(self, request: int) -> str | None:
        """Why a request ended without a change; None when it was carried out. It must have ended."""

    @abstractmethod
    def audit(self) -> list[Audited]:
        """The actions, in their order."""

    @abstractmethod
    def hold_consumer(self, held: bool) -> None:
        """A person pauses the consumer, or lets it go on."""

    @abstractmethod
    def set_aside(self) -> dict[tuple[bool, int, int], str]:
        """What is set aside, with its reason: by whether it is a row of a snapshot, partition and offset."""

    @abstractmethod
    def passed(self) -> set[tuple[str, int, int]]:
        """The sweeps that are passed: id, partition and the offset of the first record."""


class MemoryLab(BooksLab):
    """The fake."""

    def __init__(self) -> None:
        self.books: MemoryBooks = MemoryBooks()
        self._asked = 0

    def rows(self, partition: int) -> dict[str, DetachedRow]:
        return dict(self.books.rows.get(partition, {}))

    def ask(
        self, partition: int, lane: str, verb: Verb, offset: int | None = None, expected: int | None = None
    ) -> int:
        self._asked += 1
        self.books.ask(Request(self._asked, partition, lane, verb, "because", offset, expected))
        return self._asked

    def withdraw(self, request: int) -> None:
        self.books.withdraw(request)

    def refusal(self, request: int) -> str | None:
        assert request not in self.books.open
        return self.books.refusals.get(request)

    def audit(self) -> list[Audited]:
        return [
            Audited(f"lanes.{request.verb}", request.lane, request.reason, first, incarnation)
            for request, first, incarnation in self.books.actions
        ]

    def hold_consumer(self, held: bool) -> None:
        self.books.paused = held

    def set_aside(self) -> dict[tuple[bool, int, int], str]:
        return {place: rejection.reason for place, rejection in self.books.rejected.items()}

    def passed(self) -> set[tuple[str, int, int]]:
        first: dict[tuple[str, int], int] = {}
        for number, records in self.books.passed.items():
            for offset, record in sorted(records.items()):
                first.setdefault((record.sweep.id, number), offset)
        return {(*place, offset) for place, offset in first.items()}


class ControlLab(BooksLab):
    """The control database. `other` are the books of another consumer in it."""

    def __init__(self, database: ControlDatabase) -> None:
        self.database = database
        self.books: Bookkeeping = Bookkeeping(database, CONSUMER, TOPICS)
        self.other: Bookkeeping = Bookkeeping(database, "warehouse", TOPICS)

    def rows(self, partition: int) -> dict[str, DetachedRow]:
        return {
            row.lane: DetachedRow(row.lane, row.first, row.until, row.incarnation, row.state, row.reason)
            for row in detached.rows(self.database, CONSUMER)
            if (row.topic, row.partition) == TOPICS.place(partition)
        }

    def ask(
        self, partition: int, lane: str, verb: Verb, offset: int | None = None, expected: int | None = None
    ) -> int:
        place, counts = TOPICS.place(partition), {"records": 7}
        asked = Asked(CONSUMER, *place, lane, verb, ACTOR, "because", offset, expected, counts)
        return requests.ask(self.database, [asked])[0]

    def withdraw(self, request: int) -> None:
        assert requests.withdraw(self.database, request, actor=ACTOR)

    def refusal(self, request: int) -> str | None:
        outcome = requests.outcome(self.database, request)
        assert outcome is not None
        assert outcome.finished
        return outcome.refusal

    def audit(self) -> list[Audited]:
        with self.database.transaction() as connection:
            found = connection.execute(
                "SELECT actor, verb, subject, reason, details FROM actions ORDER BY id"
            ).fetchall()
        audited = []
        for actor, verb, subject, reason, details in found:
            consumer, lane = subject.split(" ")
            assert (actor, consumer, details["records"]) == (ACTOR, CONSUMER, 7)
            audited.append(Audited(verb, lane, reason, details["first"], details["incarnation"]))
        return audited

    def hold_consumer(self, held: bool) -> None:
        change = requests.pause_consumer if held else requests.resume_consumer
        assert change(self.database, CONSUMER, actor=ACTOR, reason="because")

    def set_aside(self) -> dict[tuple[bool, int, int], str]:
        with self.database.transaction() as connection:
            found = connection.execute("SELECT topic, partition, record_offset, reason FROM rejected")
            return {
                (topic != TOPICS.names[0], partition, at): reason for topic, partition, at, reason in found
            }

    def passed(self) -> set[tuple[str, int, int]]:
        with self.database.transaction() as connection:
            found = connection.execute("SELECT sweep, topic, partition, record_offset FROM sweep_passages")
            return {(sweep, TOPICS.number(topic, partition), at) for sweep, topic, partition, at in found}


def waiting_sessions(database_url: str) -> int:
    """Sessions of the database that wait for a lock."""
    with psycopg.connect(database_url) as session:
        found = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchall()
    return int(found[0][0])
