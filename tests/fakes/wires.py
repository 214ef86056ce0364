"""The ways between a process and the services, on which a single call can go wrong as networks and kills allow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, ParamSpec, TypeVar

from msgspec.structs import replace

from pipeline.bridge.copies import CopiedRecord
from pipeline.consumer import Rejection
from pipeline.control.copies import Copy
from pipeline.errors import TransientError
from pipeline.ports import (
    Append,
    Appended,
    Committed,
    Detachment,
    Needs,
    News,
    Record,
    Request,
    SweepRecord,
    Takeover,
    Tenure,
)
from tests.fakes.books import MemoryBooks
from tests.fakes.copies import MemoryArchive
from tests.fakes.kafka import MemoryMember, MemoryRereader
from tests.fakes.lane_store import MemoryLaneStore

_P = ParamSpec("_P")
_T = TypeVar("_T")

Trouble = Literal["dies before", "dies after", "no answer", "reply lost", "late", "overtaken"]
Service = Literal["kafka", "store", "books", "bucket"]

CALLS: Mapping[Service, Sequence[str]] = {
    "kafka": ("committed", "commit", "reread"),
    "store": ("epoch", "add", "acknowledged", "reset"),
    "books": (
        "take_over",
        "detach",
        "hand_over",
        "advance",
        "close",
        "requests",
        "answer",
        "consumer_paused",
        "set_aside",
        "wait_sweeps",
        "waiting_sweeps",
        "pass_sweeps",
        "standing",
        "listed",
        "announce",
        "note",
        "explain",
        "unused",
        "forget",
    ),
    "bucket": ("put", "load", "delete"),
}
_READS = frozenset(
    (
        "committed",
        "reread",
        "epoch",
        "add",
        "acknowledged",
        "reset",
        "requests",
        "consumer_paused",
        "waiting_sweeps",
        "standing",
        "listed",
        "unused",
        "load",
    )
)
_SERVICES = {call: service for service, calls in CALLS.items() for call in calls}


class Died(BaseException):
    """The process was killed here."""


@dataclass(slots=True)
class Wire:
    """Between one process and the services. ``down``: services that do not answer at all, whoever asks.

    ``wrote``: something may have been written since it was last looked at that others rely on.
    """

    late: list[Callable[[], object]]
    overtake: Callable[[], None]
    down: set[Service] = field(default_factory=set)
    wrote: bool = False
    troubles: dict[str, tuple[Trouble, int]] = field(default_factory=dict)

    def arm(self, trouble: Trouble, call: str, passing: int = 0) -> None:
        """The next call of that kind, after `passing` others, meets that trouble, once."""
        self.troubles[call] = trouble, passing

    def __call__(self, call: str, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make the call, or what becomes of it."""
        if self.down and _SERVICES[call] in self.down:
            raise TransientError(f"{_SERVICES[call]}: switched off")
        self.wrote = self.wrote or call not in _READS
        trouble = self._met(call)
        if trouble is None:
            return function(*args, **kwargs)
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

    def _met(self, call: str) -> Trouble | None:
        if call not in self.troubles:
            return None
        trouble, passing = self.troubles.pop(call)
        if passing:
            self.troubles[call] = trouble, passing - 1
            return None
        return trouble


@dataclass(slots=True)
class WiredStore:
    """The lane store over a wire; `on_reset` is told of lanes that were made anew."""

    wire: Wire
    store: MemoryLaneStore
    on_reset: Callable[[str], object]

    def epoch(self) -> str:
        return self.wire("epoch", self.store.epoch)

    def add(self, epoch: str, tenures: Mapping[int, Tenure], appends: Sequence[Append]) -> Sequence[Appended]:
        kept = [replace(one, offsets=tuple(one.offsets), values=tuple(one.values)) for one in appends]
        return self.wire("add", self.store.add, epoch, dict(tenures), kept)

    def acknowledged(self, epoch: str, partition: int, limit: int = 1000) -> Sequence[News]:
        return self.wire("acknowledged", self.store.acknowledged, epoch, partition, limit)

    def reset(
        self, epoch: str, fence: int, partition: int, lane: str, incarnation: int, base: int
    ) -> Appended:
        return self.wire("reset", self._reset, epoch, fence, partition, lane, incarnation, base)

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
        return self.wire("committed", self.member.committed, partitions)

    def commit(self, positions: Mapping[int, Committed]) -> None:
        self.wire("commit", self.member.commit_as, self.member.generation(), dict(positions))


@dataclass(slots=True)
class WiredRereader:
    """A reader beside the group over a wire; what it keeps itself never fails."""

    wire: Wire
    reader: MemoryRereader

    def seek(self, partition: int, offset: int, needs: Needs | None = None) -> None:
        self.reader.seek(partition, offset, needs)

    def pause(self, partitions: frozenset[int]) -> None:
        self.reader.pause(partitions)

    def drop(self, partition: int) -> None:
        self.reader.drop(partition)

    def poll(self, timeout: float, most: int | None = None) -> Mapping[int, Sequence[Record]]:
        self.wire(
            "reread", lambda: None
        )  # the client is the process's own: what it has read is never lost on the way
        return self.reader.poll(timeout, most)

    def position(self, partition: int) -> int:
        return self.reader.position(partition)

    def close(self) -> None:
        self.reader.close()


@dataclass(slots=True)
class WiredCopies:
    """Copies over a wire."""

    wire: Wire
    archive: MemoryArchive

    def standing(self, numbers: Collection[int]) -> Mapping[int, Mapping[str, int]]:
        return self.wire("standing", self.archive.standing, frozenset(numbers))

    def listed(self, number: int, lanes: Collection[str]) -> Sequence[Copy]:
        return self.wire("listed", self.archive.listed, number, sorted(lanes))

    def load(self, key: str) -> Sequence[CopiedRecord]:
        return self.wire("load", self.archive.load, key)

    def put(self, number: int, fence: int, records: Sequence[CopiedRecord]) -> str:
        key = self.wire("announce", self.archive.announce, number, fence)
        self._put(key, tuple(records))
        return key

    def _put(self, key: str, records: Sequence[CopiedRecord]) -> None:
        self.wire("put", self.archive.put, key, records)

    def write(self, number: int, fence: int, found: Sequence[Copy]) -> None:
        self.wire("note", self.archive.write, number, fence, tuple(found))

    def explain(self, number: int, fence: int, reasons: Mapping[str, str]) -> int:
        return self.wire("explain", self.archive.explain, number, fence, dict(reasons))

    def collect(self, numbers: Collection[int]) -> int:
        keys = self.wire("unused", self.archive.unused, frozenset(numbers))
        if keys:
            self.wire("delete", self.archive.delete, keys)
            self.wire("forget", self.archive.forget, keys)
        return len(keys)


@dataclass(slots=True)
class Witness:
    """Is told of what was written into the books, within the same step."""

    detached: Callable[[Detachment, int, Request | None], None]
    set_aside: Callable[[Sequence[Rejection]], None]
    passing: Callable[[Sequence[SweepRecord]], None]


@dataclass(slots=True)
class WiredBooks:
    """The books over a wire."""

    wire: Wire
    books: MemoryBooks
    witness: Witness

    def take_over(self, partitions: Iterable[int]) -> Mapping[int, Takeover]:
        return self.wire("take_over", self.books.take_over, frozenset(partitions))

    def detach(self, partition: int, fence: int, lanes: Sequence[Detachment]) -> Sequence[int]:
        return self.wire("detach", self._detach, partition, fence, tuple(lanes))

    def _detach(self, partition: int, fence: int, lanes: Sequence[Detachment]) -> Sequence[int]:
        asked = [self.books.open.get(one.request) if one.request else None for one in lanes]
        incarnations = self.books.detach(partition, fence, lanes)
        for one, incarnation, request in zip(lanes, incarnations, asked, strict=True):
            self.witness.detached(one, incarnation, request)
        return incarnations

    def hand_over(self, partition: int, fence: int, until: Mapping[str, int]) -> None:
        self.wire("hand_over", self.books.hand_over, partition, fence, dict(until))

    def advance(self, partition: int, fence: int, first: Mapping[str, int]) -> None:
        self.wire("advance", self.books.advance, partition, fence, dict(first))

    def close(self, partition: int, fence: int, lanes: Sequence[str]) -> None:
        self.wire("close", self.books.close, partition, fence, tuple(lanes))

    def requests(self, partitions: Iterable[int]) -> Sequence[Request]:
        return self.wire("requests", self.books.requests, frozenset(partitions))

    def answer(self, partition: int, fence: int, request: int, refusal: str) -> None:
        self.wire("answer", self.books.answer, partition, fence, request, refusal)

    def consumer_paused(self) -> bool:
        return self.wire("consumer_paused", self.books.consumer_paused)

    def set_aside(self, rejections: Sequence[Rejection]) -> None:
        self.wire("set_aside", self._set_aside, tuple(rejections))

    def _set_aside(self, rejections: Sequence[Rejection]) -> None:
        self.books.set_aside(rejections)
        self.witness.set_aside(rejections)

    def wait_sweeps(self, partition: int, fence: int, records: Sequence[SweepRecord]) -> None:
        self.wire("wait_sweeps", self.books.wait_sweeps, partition, fence, tuple(records))

    def waiting_sweeps(self, partition: int) -> Sequence[SweepRecord]:
        return self.wire("waiting_sweeps", self.books.waiting_sweeps, partition)

    def pass_sweeps(self, records: Sequence[SweepRecord]) -> None:
        self.wire("pass_sweeps", self._pass_sweeps, tuple(records))

    def _pass_sweeps(self, records: Sequence[SweepRecord]) -> None:
        self.witness.passing(records)
        self.books.pass_sweeps(records)
