"""What a person's request does to a lane, decided by where the lane stands: a new row for it, or a refusal."""

from __future__ import annotations

from pipeline.bridge.belonging import key_of
from pipeline.bridge.detached import Detached
from pipeline.bridge.offsets import Partition
from pipeline.ports import Detachment, Request, State

_PARKED_FOR = "; parked for: "


def decide(partition: Partition, request: Request) -> Detachment | str:
    """The row that carries the request out, or why it is refused."""
    lane = request.lane
    if not partition.belonging.owns(lane):
        return f"lane {lane} does not belong to partition {partition.number}"
    first, state = partition.first_of(lane), partition.state_of(lane)
    match request.verb:
        case "pause":
            return _row(partition, request, first, "paused")
        case "resume":
            return (
                _row(partition, request, first, "running")
                if state == "paused"
                else _not(lane, "paused", state)
            )
        case "release":
            return (
                _row(partition, request, first, "running")
                if state == "parked"
                else _not(lane, "parked", state)
            )
        case "resync":
            return _row(partition, request, first, state)
        case "rewind":
            return _rewound(partition, request, first, state)
        case "skip":
            return _skipped(partition, request, first, state)


def _rewound(partition: Partition, request: Request, first: int, state: State) -> Detachment | str:
    if request.offset is None:
        return "a rewind needs an offset"
    if request.offset > first:
        return f"the lane stands at offset {first}, before {request.offset}: to go forward, skip"
    return _row(partition, request, max(0, request.offset), state)


def _skipped(partition: Partition, request: Request, first: int, state: State) -> Detachment | str:
    if state == "running":
        return "only a paused or parked lane can skip: pause it first"
    if request.offset is None or request.expected is None:
        return "a skip needs to know where the lane stands and where to"
    if first != request.expected:
        return f"the lane has moved on to offset {first} since: look again"
    if not first < request.offset <= partition.position:
        return f"offset {request.offset} is not between {first} and {partition.position}, what has been read"
    return _row(partition, request, request.offset, state)


def _row(partition: Partition, request: Request, first: int, state: State) -> Detachment:
    """With what the lane was parked for, as long as nobody lets it run: that is not said elsewhere."""
    reason = f"{request.verb}: {request.reason}"
    former = partition.detached.get(key_of(request.lane))
    if former is not None and state != "running" and (cause := _cause(former)):
        reason += _PARKED_FOR + cause
    return Detachment(request.lane, first, state, reason, request.id)


def _cause(former: Detached) -> str:
    if former.state == "parked" or _PARKED_FOR in former.reason:
        return former.reason.rpartition(_PARKED_FOR)[2]
    return ""


def _not(lane: str, wanted: State, state: State) -> str:
    return f"lane {lane} is not {wanted} but {state}"
