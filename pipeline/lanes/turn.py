"""A turn: what a worker does with a claim. Decode, let the handler decide, set aside what can never be accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from pipeline.consumer import Event, Lane, Outcome, Rejection, SinkUnavailableError, Turn
from pipeline.domain.event import decode
from pipeline.errors import MalformedEventError, PipelineError, TransientError
from pipeline.failpoints import passes
from pipeline.lanes.claim import Claim, ClaimedLane

Handler = Callable[[Turn], None]
SetAside = Callable[[Sequence[Rejection]], None]

UNDECIDED = "the handler left the lane undecided"


class Jitter(Protocol):
    """A source of numbers in [0, 1)."""

    def __call__(self) -> float:
        """The next one."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a failing lane waits: doubling from `first` to `most` seconds, between half and all of it."""

    jitter: Jitter
    first: float = 0.5
    most: float = 60.0

    def milliseconds(self, failures: int) -> int:
        """The wait after `failures` failed turns in a row before this one."""
        return round(1000 * min(self.most, self.first * 2.0 ** min(failures, 30)) * (0.5 + self.jitter() / 2))


@dataclass(frozen=True, slots=True)
class Finish:
    """What became of a turn: an outcome for each of its lanes, and how many events were set aside."""

    outcomes: tuple[Outcome, ...]
    rejected: int = 0

    def __str__(self) -> str:
        kinds = [outcome.kind for outcome in self.outcomes]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
        return f"{counts}; {self.rejected} rejected" if self.rejected else counts


@dataclass(frozen=True, slots=True)
class Consumption:
    """How one consumer takes its turns. ``single`` (group = 1): returning without an outcome means done.

    ``partitions`` are those of each of its topics; claims number them through.
    """

    consumer: str
    handler: Handler
    set_aside: SetAside
    backoff: Backoff
    partitions: int
    single: bool = False


def run_turn(consumption: Consumption, claim: Claim) -> Finish:
    """Run the handler on a claim; every lane of it leaves with an outcome, whatever the handler does.

    Nothing that is set aside is acknowledged before it is stored: when it cannot be, the turn is tried again.
    """
    passes("turn.claimed")
    decoded = [_Decoded.of(lane, consumption.partitions) for lane in claim.lanes]
    lanes = [one.lane for one in decoded if one.lane.events]
    trouble = _trouble(consumption.handler, Turn(consumption.consumer, claim.token, lanes)) if lanes else None
    passes("turn.handled")
    rejections = [rejection for one in decoded for rejection in one.rejections()]
    try:
        consumption.set_aside(rejections)
    except TransientError as error:
        return Finish(_all_unavailable(claim, reason_of(error)))
    passes("turn.rejected_stored")
    outcomes = tuple(_outcome(consumption, one, trouble, alone=len(claim.lanes) == 1) for one in decoded)
    return Finish(outcomes, len(rejections))


def undecided(claim: Claim, reason: str, backoff: Backoff) -> Finish:
    """The outcome of a turn whose process or task broke down: all of it again, counted."""
    return Finish(
        tuple(
            Outcome(lane.merchant, 0, "undecided", backoff.milliseconds(lane.failures), reason)
            for lane in claim.lanes
        )
    )


def reason_of(error: BaseException) -> str:
    """Why something failed, in words that hold no row values: our own errors', or the exception's name."""
    # Task.retry in a handler arrives as Celery's Reject around the transport's refusal.
    known = getattr(error, "reason", None) if not isinstance(error, PipelineError) else error
    return known.what if isinstance(known, PipelineError) else type(error).__name__


def _trouble(handler: Handler, turn: Turn) -> Exception | None:
    try:
        handler(turn)
    except Exception as error:  # noqa: BLE001  a handler may raise anything; every lane gets its outcome below
        return error
    return None


class _Decoded(msgspec.Struct, frozen=True, gc=False):
    """A claimed lane: the handler's view of it, and where each of its events stands among the entries."""

    claimed: ClaimedLane
    lane: Lane
    places: tuple[int, ...]
    malformed: tuple[Rejection, ...]

    @classmethod
    def of(cls, claimed: ClaimedLane, partitions: int) -> _Decoded:
        merchant, partition = claimed.merchant, claimed.partition % partitions
        events: list[Event] = []
        places: list[int] = []
        malformed: list[Rejection] = []
        for place, (offset, value) in enumerate(claimed.entries):
            try:
                events.append(decode(value, merchant))
                places.append(place)
            except MalformedEventError as error:
                malformed.append(
                    Rejection(merchant, partition, offset, error.what, value, snapshot=claimed.snapshot)
                )
        entries = [claimed.entries[place] for place in places]
        lane = Lane(
            merchant,
            partition,
            [entry.offset for entry in entries],
            events,
            [entry.value for entry in entries],
            claimed.failures,
            claimed.snapshot,
        )
        return cls(claimed, lane, tuple(places), tuple(malformed))

    def rejections(self) -> Iterator[Rejection]:
        yield from self.malformed
        yield from self.lane.rejections

    def finished(self) -> int:
        """Events done from the start of the lane; a rejected one counts, once everything before it is done."""
        count = min(self.lane.finished or 0, len(self.lane.events))
        rejected = {rejection.offset for rejection in self.lane.rejections}
        while count < len(self.lane.events) and self.lane.offsets[count] in rejected:
            count += 1
        return count

    def entries(self, finished: int) -> int:
        """Entries that leave the lane when so many events are done: malformed ones before the next go along."""
        return self.places[finished] if finished < len(self.places) else len(self.claimed.entries)


def _outcome(consumption: Consumption, one: _Decoded, trouble: Exception | None, *, alone: bool) -> Outcome:
    lane, finished = one.lane, one.finished()
    entries = one.entries(finished)
    if lane.parking is not None:
        return Outcome(lane.merchant, entries, "park", reason=lane.parking)
    if lane.failure is not None:
        reason, after = lane.failure
        delay = _delay(consumption, lane, entries) if after is None else round(after * 1000)
        return Outcome(lane.merchant, entries, "retry", delay, reason)
    if finished == len(lane.events):
        return Outcome(lane.merchant, entries, "done")
    if isinstance(trouble, SinkUnavailableError):
        return Outcome(lane.merchant, entries, "unavailable", reason=reason_of(trouble))
    if trouble is None and lane.finished:
        return Outcome(lane.merchant, entries, "done")
    if trouble is None and lane.finished is None and consumption.single:
        return Outcome(lane.merchant, len(one.claimed.entries), "done")
    reason = UNDECIDED if trouble is None else reason_of(trouble)
    if trouble is not None and not alone:
        reason = f"{reason} in a turn of several lanes"
    return Outcome(lane.merchant, entries, "undecided", _delay(consumption, lane, entries), reason)


def _delay(consumption: Consumption, lane: Lane, entries: int) -> int:
    return consumption.backoff.milliseconds(0 if entries else lane.failures)


def _all_unavailable(claim: Claim, reason: str) -> tuple[Outcome, ...]:
    return tuple(Outcome(lane.merchant, 0, "unavailable", reason=reason) for lane in claim.lanes)
