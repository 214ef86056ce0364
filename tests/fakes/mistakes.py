"""Mistakes to plant into bridges, books and lanes: each takes one mechanism away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from pipeline.bridge.belonging import key_of
from pipeline.bridge.dispatcher import Dispatcher
from pipeline.bridge.doubles import Doubles
from pipeline.bridge.offsets import Partition
from pipeline.consumer import Outcome
from pipeline.errors import TransientError
from pipeline.lanes.claim import ClaimedLane
from pipeline.ports import Append, Appended, DetachedRow, News, Tenure
from tests.fakes.books import MemoryBooks
from tests.fakes.lane_store import MemoryLane, MemoryLaneStore
from tests.fakes.wires import WiredCopies


class Mistake(NamedTuple):
    """Instead of that method of that class, `instead` is called, with the method itself in front."""

    mechanism: str
    owner: type
    method: str
    instead: Callable[..., Any]

    def plant(self, patch: pytest.MonkeyPatch) -> None:
        """Do without the mechanism from now on."""
        method = getattr(self.owner, self.method)
        patch.setattr(self.owner, self.method, lambda *given, **named: self.instead(method, *given, **named))


def nothing(method: Callable[..., Any], *given: Any, **named: Any) -> None:
    """It is not done."""


# What the bridge does


def the_position(method: Callable[..., Any], bridge: Dispatcher, partition: Partition) -> int:
    return partition.position


def as_it_reads(method: Callable[..., Any], bridge: Dispatcher) -> None:
    read = [record for partition in bridge._held.values() for record in partition.aside.sweeps]
    if read:
        bridge._books.pass_sweeps(read)


def without_sweeps(method: Callable[..., Any], partition: Partition) -> int | None:
    partition.aside.sweeps = []
    return method(partition)  # type: ignore[no-any-return]


def whoever_says_so(method: Callable[..., Any], partition: Partition, news: News) -> None:
    lane = partition._fed(key_of(news.lane))
    if lane is not None and lane.incarnation is not None:
        method(partition, news._replace(incarnation=lane.incarnation))


def the_newest(method: Callable[..., Any], doubles: Doubles, offset: int) -> Mapping[str, Any]:
    return doubles._seen


# What the books do


def the_row_goes(
    method: Callable[..., Any], books: MemoryBooks, partition: int, fence: int, until: Mapping[str, int]
) -> None:
    method(books, partition, fence, until)
    books.close(partition, fence, list(until))


def one_more_than_before(method: Callable[..., Any], books: MemoryBooks, row: DetachedRow | None) -> int:
    incarnation = row.incarnation + 1 if row else 1
    books.counter = max(books.counter, incarnation)
    return incarnation


def as_it_was(method: Callable[..., Any], books: MemoryBooks, row: DetachedRow) -> DetachedRow:
    return row


# What the copies do


def whatever_becomes_of_it(method: Callable[..., Any], copies: WiredCopies, *given: Any) -> None:
    with suppress(TransientError):
        method(copies, *given)


# What the lanes do


def the_old_list(
    method: Callable[..., Any],
    lanes: MemoryLaneStore,
    epoch: str,
    fence: int,
    partition: int,
    lane: str,
    incarnation: int,
    base: int,
) -> Appended:
    if (found := lanes.lanes.get(lane)) is not None and found.incarnation is not None:
        found.incarnation = max(found.incarnation, incarnation)
        found.parked = None
    return method(lanes, epoch, fence, partition, lane, incarnation, base)  # type: ignore[no-any-return]


def whatever_it_ends_at(method: Callable[..., Any], lane: MemoryLane, partition: int) -> bool:
    return None not in (lane.enqueued, lane.acknowledged) and lane.partition == partition


def without_previous(
    method: Callable[..., Any], lanes: MemoryLaneStore, append: Append, tenure: Tenure
) -> Appended:
    return method(lanes, replace(append, previous=None), tenure)  # type: ignore[no-any-return]


def whichever_it_is(method: Callable[..., Any], lane: MemoryLane, append: Append, tenure: Tenure) -> bool:
    return lane.incarnation is not None


def keeping_the_claim(
    method: Callable[..., Any], lanes: MemoryLaneStore, lane: MemoryLane, append: Append
) -> None:
    orphan = lane.claim is not None and lane.claim not in lanes.leases
    if orphan:
        lanes.leases[lane.claim] = lanes.now  # type: ignore[index]
    method(lanes, lane, append)
    if orphan:
        del lanes.leases[lane.claim]  # type: ignore[arg-type]


def of_any_token(method: Callable[..., Any], lanes: MemoryLaneStore, name: str, token: int) -> bool:
    return name in lanes.lanes


def as_a_failure(
    method: Callable[..., Any], lanes: MemoryLaneStore, claimed: ClaimedLane, outcome: Outcome, *, alone: bool
) -> None:
    failed = replace(outcome, kind="retry") if outcome.kind == "unavailable" else outcome
    method(lanes, claimed, failed, alone=alone)


def of_its_own(
    method: Callable[..., Any], lanes: MemoryLaneStore, name: str, reason: str, delay: int = 0, *, own: bool
) -> None:
    method(lanes, name, reason, delay, own=True)


def still_due(method: Callable[..., Any], lanes: MemoryLaneStore, claimed: ClaimedLane, token: int) -> None:
    method(lanes, claimed, token)
    lanes.due[claimed.name] = lanes.now


def kinds_by_turns(
    method: Callable[..., Any], lanes: MemoryLaneStore, token: int, *, snapshots: bool
) -> Sequence[str]:
    return method(lanes, token, snapshots=token % 3 == 0) if not snapshots else []


MISTAKES: Sequence[Mistake] = [
    Mistake("the watermark is the smallest pending offset", Dispatcher, "_watermark", the_position),
    Mistake("sweeps are passed after the sink has what is before them", Dispatcher, "_pass", as_it_reads),
    Mistake(
        "offsets are committed past a sweep once it is passed", Partition, "smallest_pending", without_sweeps
    ),
    Mistake("silent lanes are asked", Dispatcher, "_check", nothing),
    Mistake("an acknowledgement counts for its own incarnation", Partition, "accept", whoever_says_so),
    Mistake("the saved position of relays belongs to the committed offset", Doubles, "_state", the_newest),
    Mistake(
        "a row stays until everything below its hand-over is accepted", MemoryBooks, "hand_over", the_row_goes
    ),
    Mistake("writes are fenced", MemoryBooks, "require", nothing),
    Mistake("an incarnation is never used again", MemoryBooks, "incarnation", one_more_than_before),
    Mistake("a take-over opens the rows", MemoryBooks, "opened", as_it_was),
    Mistake("a copy is noted once it is whole", WiredCopies, "_put", whatever_becomes_of_it),
    Mistake("a rewind empties the lane", MemoryLaneStore, "reset", the_old_list),
    Mistake("a list must end at what was enqueued", MemoryLane, "sound", whatever_it_ends_at),
    Mistake("an event must follow the one before it", MemoryLaneStore, "_add", without_previous),
    Mistake("an event is for one incarnation", MemoryLane, "meant", whichever_it_is),
    Mistake("a claim without lease is void", MemoryLaneStore, "_extend", keeping_the_claim),
    Mistake("a turn's outcome needs its token", MemoryLaneStore, "_holds", of_any_token),
    Mistake("a claimed lane is not due", MemoryLaneStore, "_mark", still_due),
    Mistake("a sink that is away counts against nobody", MemoryLaneStore, "_settle", as_a_failure),
    Mistake(
        "what a turn of several fails at counts against none of them", MemoryLaneStore, "_fail", of_its_own
    ),
    Mistake("leases end", MemoryLaneStore, "_expire", nothing),
    Mistake("changes go before snapshots", MemoryLaneStore, "_candidates", kinds_by_turns),
]
