"""The values that travel between the lanes and the workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from pipeline.consumer import Outcome
from pipeline.domain.routing import lane_of
from pipeline.settings import Consumer, Tasks, seconds


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """How a consumer's lanes are claimed. Times in milliseconds, sizes in bytes of raw Kafka values.

    A turn takes the heads of up to ``group`` lanes, ``events`` events and ``bytes`` bytes in all. A lane is due when it
    has ``events`` events or its oldest is ``linger`` old. A claim ends after ``lease`` unless it is renewed, and is not
    renewed when it is ``longest`` old. A lane that has failed joins a turn of half as many lanes with each failure; after
    ``max_failures`` of its own in a row, while others are accepted, it is parked (0: never).
    """

    group: int = 1
    events: int = 1000
    bytes: int = 8 * 1024 * 1024
    linger: int = 0
    lease: int = 10_000
    longest: int = 300_000
    max_failures: int = 12

    @classmethod
    def of(cls, consumer: Consumer) -> TurnLimits:
        """The limits in a consumer's settings."""
        return cls(
            group=consumer.group,
            events=consumer.turn_events,
            bytes=consumer.turn_bytes,
            linger=_milliseconds(consumer.linger),
            lease=_milliseconds(consumer.lease),
            longest=_milliseconds(consumer.turn_limit),
            max_failures=consumer.max_failures,
        )

    @classmethod
    def of_tasks(cls, tasks: Tasks) -> TurnLimits:
        """One task of one lane at a time; no lane of tasks is parked."""
        return cls(
            group=1,
            events=1,
            lease=_milliseconds(tasks.lease),
            longest=_milliseconds(tasks.turn_limit),
            max_failures=0,
        )


def _milliseconds(duration: str) -> int:
    return round(seconds(duration) * 1000)


class Entry(NamedTuple):
    """One event in a lane: its offset in the partition and the record's value as it came."""

    offset: int
    value: bytes


def encode_entry(offset: int, value: bytes) -> bytes:
    """An event as the lane's list holds it."""
    return b"%d\n%b" % (offset, value)


def decode_entry(raw: bytes) -> Entry:
    """An event as it was put into the lane."""
    offset, _, value = raw.partition(b"\n")
    return Entry(int(offset), value)


class ClaimedLane(msgspec.Struct, frozen=True, gc=False):
    """The head of one lane as a turn got it; ``failures`` counts its failed turns since the last accepted event.

    ``partition`` is numbered through the consumer's topics; ``snapshot``: the lane holds rows that snapshots read.
    """

    merchant: str
    partition: int
    failures: int
    entries: tuple[Entry, ...]
    snapshot: bool = False

    @property
    def name(self) -> str:
        """The lane's name in the store."""
        return lane_of(self.merchant, snapshot=self.snapshot)


@dataclass(frozen=True, slots=True)
class Claim:
    """One turn: lanes of one kind, live or of snapshots. ``token`` is above that of every earlier claim of this consumer."""

    token: int
    lanes: tuple[ClaimedLane, ...]

    @property
    def events(self) -> int:
        """Events in all lanes together."""
        return sum(len(lane.entries) for lane in self.lanes)

    def __str__(self) -> str:
        names = ", ".join(lane.name for lane in self.lanes[:5])
        more = ", …" if len(self.lanes) > 5 else ""
        lanes = "1 lane" if len(self.lanes) == 1 else f"{len(self.lanes)} lanes"
        events = "1 event" if self.events == 1 else f"{self.events} events"
        return f"{lanes}, {events}: {names}{more}"


class Finished(NamedTuple):
    """A claim that came back. A lane without an outcome counts as failed and is ready at once."""

    claim: Claim
    outcomes: Sequence[Outcome]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: ``refused`` outcomes whose claim had ended, and the next claim if there was one.

    ``wait`` is the time in milliseconds after which another step may find something, 0 when it may at once.
    """

    refused: int
    wait: int
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class FailingLane:
    """A lane whose last turn failed; ``oldest`` is the offset it stands at, None while its list is empty.

    ``partition`` is numbered through; ``snapshot``: the lane holds rows that snapshots read. ``parked``: it gets no more
    turns, and its bridge has not yet moved it out of its partition's way.
    """

    merchant: str
    partition: int
    failures: int
    reason: str
    oldest: int | None
    snapshot: bool = False
    parked: bool = False

    @property
    def name(self) -> str:
        """The lane's name in the store."""
        return lane_of(self.merchant, snapshot=self.snapshot)


@dataclass(frozen=True, slots=True)
class Overview:
    """The lanes of one consumer: how many wait and are claimed, which fail, and the longest of those with events.

    Lanes of snapshots are counted with the others; ``snapshots`` of them wait, behind every live lane that is due.
    ``sink_failures`` is 0 while the sink accepts; above, the consumer tries one turn at a time after a pause.
    """

    ready: int
    snapshots: int
    claimed: int
    failing: tuple[FailingLane, ...]
    failing_count: int
    longest: tuple[tuple[str, int], ...]
    sink_failures: int
