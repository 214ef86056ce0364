"""The ways between a process and the services, on which a single call can go wrong as networks and kills allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, ParamSpec, TypeVar

from pipeline.errors import TransientError
from pipeline.ports import Append, Appended, Committed, News, Tenure
from tests.fakes.kafka import MemoryMember
from tests.fakes.lane_store import MemoryLaneStore

_P = ParamSpec("_P")
_T = TypeVar("_T")

Trouble = Literal["dies before", "dies after", "no answer", "reply lost", "late", "overtaken"]


class Died(BaseException):
    """The process was killed here."""


@dataclass(slots=True)
class Wire:
    """Between one process and the services: the call number `at` meets `trouble`."""

    late: list[Callable[[], object]]
    overtake: Callable[[], None]
    trouble: Trouble | None = None
    at: int = 0

    def __call__(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make the call, or what becomes of it."""
        self.at -= 1
        trouble = self.trouble if self.at == -1 else None
        if trouble == "dies before":
            raise Died
        if trouble == "late":
            self.late.append(lambda: function(*args, **kwargs))
        if trouble in ("no answer", "late"):
            raise TransientError(trouble)
        if trouble == "overtaken":
            self.overtake()
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
    on_reset: Callable[[str], object]

    def epoch(self) -> str:
        return self.wire(self.store.epoch)

    def add(self, epoch: str, tenures: Mapping[int, Tenure], appends: Sequence[Append]) -> Sequence[Appended]:
        kept = [replace(one, offsets=tuple(one.offsets), values=tuple(one.values)) for one in appends]
        return self.wire(self.store.add, epoch, dict(tenures), kept)

    def acknowledged(self, epoch: str, partition: int, limit: int = 1000) -> Sequence[News]:
        return self.wire(self.store.acknowledged, epoch, partition, limit)

    def reset(
        self, epoch: str, fence: int, partition: int, lane: str, incarnation: int, base: int
    ) -> Appended:
        return self.wire(self._reset, epoch, fence, partition, lane, incarnation, base)

    def _reset(
        self, epoch: str, fence: int, partition: int, lane: str, incarnation: int, base: int
    ) -> Appended:
        before = self.store.lanes.get(lane)
        answer = self.store.reset(epoch, fence, partition, lane, incarnation, base)
        if self.store.lanes.get(lane) is not before:
            self.on_reset(lane)
        return answer


@dataclass(slots=True)
class WiredOffsets:
    """Committed offsets over a wire."""

    wire: Wire
    member: MemoryMember

    def committed(self, partitions: frozenset[int]) -> Mapping[int, Committed]:
        return self.wire(self.member.committed, partitions)

    def commit(self, positions: Mapping[int, Committed]) -> None:
        self.wire(self.member.commit, dict(positions))
