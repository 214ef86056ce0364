"""The step of a worker as Redis speaks it: outcomes out, the next claim in, one script call."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice, pairwise
from typing import Any

from pipeline.consumer import Outcome
from pipeline.domain.reason import storable
from pipeline.domain.routing import is_snapshot_lane, merchant_of_lane
from pipeline.lanes.claim import Claim, ClaimedLane, Finished, Step, TurnLimits, decode_entry
from pipeline.lanes.scripts import Argument

_LONGEST_REASON = 200
# As step.lua unpacks and packs them; the name follows, of the length that is the last number.
_OUTCOME = struct.Struct("<qIqBH")
_LANE = struct.Struct("<iIIH")
_LENGTH = struct.Struct("<I")


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
        lanes = {lane.merchant: lane for lane in one.claim.lanes}
        packed = [_packed(lanes[outcome.merchant], outcome) for outcome in one.outcomes]
        arguments += one.claim.token, b"".join(packed)
        for outcome in one.outcomes:
            if outcome.kind != "done":
                reason = storable(outcome.reason[:_LONGEST_REASON]) or outcome.kind
                arguments += outcome.kind, outcome.delay_ms, reason
    return arguments


def _packed(lane: ClaimedLane, outcome: Outcome) -> bytes:
    name, entries = lane.name.encode(), lane.entries
    first, last = entries[0].offset, entries[max(0, outcome.entries - 1)].offset
    return _OUTCOME.pack(first, outcome.entries, last, outcome.kind == "done", len(name)) + name


def step_of(reply: Sequence[Any]) -> Step:
    """What the script ``step`` answered."""
    refused, wait, token, *lanes = reply
    claim = Claim(int(token), tuple(_claimed(*lanes))) if token else None
    return Step(refused, wait, claim)


def _claimed(lanes: bytes, lengths: bytes, *pieces: bytes) -> Iterator[ClaimedLane]:
    data = b"".join(pieces)
    ends = accumulate((length for (length,) in _LENGTH.iter_unpack(lengths)), initial=0)
    entries = (decode_entry(data[start:end]) for start, end in pairwise(ends))
    at = 0
    while at < len(lanes):
        partition, failures, count, length = _LANE.unpack_from(lanes, at)
        at += _LANE.size + length
        name = lanes[at - length : at].decode()
        taken = tuple(islice(entries, count))
        yield ClaimedLane(merchant_of_lane(name), partition, failures, taken, is_snapshot_lane(name))
