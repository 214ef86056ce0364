"""Bridges, workers and their surroundings in memory, every one of which can fail between any two steps.

The dispatcher and the turn are the product's own; around them stand the fakes. A process reaches a service through a
``Wire``, on which a single call can go wrong in every way a network and a kill allow.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, ParamSpec, TypeVar

import msgspec

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.dispatcher import Dispatcher
from pipeline.consumer import Outcome, Rejection, SinkUnavailableError, Turn
from pipeline.domain.routing import partition_of
from pipeline.errors import TransientError
from pipeline.lanes.claim import Claim, Finished, TurnLimits
from pipeline.lanes.turn import Backoff, Consumption, run_turn
from pipeline.ports import Append, Appended
from tests.fakes.kafka import MemoryKafka, MemoryMember
from tests.fakes.lane_store import MemoryLaneStore
from tests.fakes.turns import event

PARTITIONS = 2
MERCHANTS = ("6", "7", "12", "acme")
WORKERS = 3
_P = ParamSpec("_P")
_T = TypeVar("_T")

Trouble = Literal["dies before", "dies after", "no answer", "reply lost", "late", "overtaken"]
Kind = Literal["event", "malformed", "no value", "no key"]
Damage = Literal["lane", "list", "tail", "enqueued", "acknowledged", "due", "dirty", "claim", "leases"]


class Died(BaseException):
    """The process was killed here."""


class Broken(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Wire:
    """Between one process and the services: the call number `at` meets `trouble`."""

    world: World
    slot: int
    trouble: Trouble | None = None
    at: int = 0

    def __call__(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make the call, or what becomes of it."""
        self.at -= 1
        trouble = self.trouble if self.at == -1 else None
        if trouble == "dies before":
            raise Died
        if trouble == "late":
            self.world.late.append(lambda: function(*args, **kwargs))
        if trouble in ("no answer", "late"):
            raise TransientError(trouble)
        if trouble == "overtaken":
            self.world.overtake(self.slot)
        answer = function(*args, **kwargs)
        if trouble == "dies after":
            raise Died
        if trouble == "reply lost":
            raise TransientError(trouble)
        return answer


@dataclass(slots=True)
class WiredStore:
    """The lane store over a wire."""

    wire: Wire
    store: MemoryLaneStore

    def epoch(self) -> str:
        return self.wire(self.store.epoch)

    def add(self, epoch: str, fences: Mapping[int, int], appends: Sequence[Append]) -> Sequence[Appended]:
        kept = [
            Append(one.merchant, one.partition, one.previous, tuple(one.offsets), tuple(one.values))
            for one in appends
        ]
        return self.wire(self.store.add, epoch, fences, kept)

    def acknowledged(self, epoch: str, partition: int, limit: int = 1000) -> Sequence[tuple[str, int]]:
        return self.wire(self.store.acknowledged, epoch, partition, limit)

    def reset(self, epoch: str, fence: int, partition: int, merchant: str, base: int) -> None:
        self.wire(self.store.reset, epoch, fence, partition, merchant, base)


@dataclass(slots=True)
class WiredOffsets:
    """Committed offsets over a wire."""

    wire: Wire
    member: MemoryMember

    def committed(self, partitions: frozenset[int]) -> Mapping[int, int]:
        return self.wire(self.member.committed, partitions)

    def commit(self, positions: Mapping[int, int]) -> None:
        self.wire(self.member.commit, dict(positions))


@dataclass(slots=True)
class Sink:
    """Accepts everything once and in order; a first delivery out of order breaks a promise."""

    log: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)
    written: set[tuple[str, int]] = field(default_factory=set)

    def write(self, merchant: str, offset: int) -> None:
        if (merchant, offset) in self.written:
            return
        for earlier, good in self.log[merchant]:
            if earlier < offset and good and (merchant, earlier) not in self.written:
                raise Broken(f"{merchant}: {offset} delivered before {earlier}")
        self.written.add((merchant, offset))


@dataclass(slots=True)
class Worker:
    """One worker: the turn in its hands, and its outcomes once the handler returned."""

    claim: Claim | None = None
    outcomes: tuple[Outcome, ...] | None = None


class World:
    """Everything together. `store_class` and `dispatcher_class` may lack a mechanism."""

    def __init__(
        self,
        store_class: type[MemoryLaneStore] = MemoryLaneStore,
        dispatcher_class: type[Dispatcher] = Dispatcher,
    ) -> None:
        self.kafka = MemoryKafka(PARTITIONS)
        self.kafka.positions = dict.fromkeys(range(PARTITIONS), 0)
        self.store = store_class(TurnLimits(group=2, events=3, lease=10_000))
        self.sink = Sink({merchant: [] for merchant in MERCHANTS})
        self.bad: set[tuple[int, int]] = set()
        self.rejected: set[tuple[int, int]] = set()
        self.late: list[Callable[[], object]] = []
        self.workers = [Worker() for _ in range(WORKERS)]
        self._fences: dict[int, int] = {}
        self._dispatcher_class = dispatcher_class
        self._saved: dict[str, Any] | None = None
        self._busy: set[int] = set()
        self.wires, self.members, self.bridges = [], [], []  # type: list[Wire], list[MemoryMember], list[Dispatcher]
        for slot in (0, 1):
            self._build(slot)
        for partition in range(PARTITIONS):
            self.kafka.give(partition, self.members[partition % 2])
