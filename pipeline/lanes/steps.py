"""The step of a worker as Redis speaks it: outcomes out, the next claim in, one script call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipeline.consumer import Outcome
from pipeline.domain.reason import storable
from pipeline.domain.routing import is_snapshot_lane, merchant_of_lane
from pipeline.lanes.claim import Claim, ClaimedLane, Finished, Step, TurnLimits, decode_entry
from pipeline.lanes.scripts import Argument

_LONGEST_REASON = 200


def step_arguments(
    limits: TurnLimits, finished: Iterable[Finished], *, claim: bool, floor: int, jitter: float
) -> list[Argument]:
    """The arguments of the script ``step``."""
    arguments: list[Argument] = [
        limits.group,
        limits.events,
        limits.bytes,
        limits.lease,
        limits.linger,
        limits.max_failures,
        int(claim),
        floor,
        jitter,
    ]
    for one in finished:
        arguments += one.claim.token, len(one.outcomes)
        arguments += _outcomes(one)
    return arguments


def _outcomes(finished: Finished) -> Iterator[Argument]:
    lanes = {lane.merchant: lane for lane in finished.claim.lanes}
    for outcome in finished.outcomes:
        yield from _outcome(lanes[outcome.merchant], outcome)


def _outcome(lane: ClaimedLane, outcome: Outcome) -> Sequence[Argument]:
    first, last = lane.entries[0].offset, lane.entries[max(0, outcome.entries - 1)].offset
    reason = storable(outcome.reason[:_LONGEST_REASON]) or outcome.kind
    return lane.name, first, outcome.entries, last, outcome.kind, outcome.delay_ms, reason


def step_of(reply: Sequence[Any]) -> Step:
    """What the script ``step`` answered."""
    refused, wait, token, *lanes = reply
    claim = Claim(int(token), tuple(_lane(lane) for lane in lanes)) if token else None
    return Step(refused, wait, claim)


def _lane(reply: Sequence[Any]) -> ClaimedLane:
    raw, partition, failures, entries = reply
    name = raw.decode()
    taken = tuple(map(decode_entry, entries))
    return ClaimedLane(merchant_of_lane(name), int(partition), failures, taken, is_snapshot_lane(name))
