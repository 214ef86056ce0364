"""Copies of lanes' records in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from pipeline.bridge.copies import CopiedRecord
from pipeline.control.copies import Copy
from pipeline.errors import PipelineError, TransientError
from tests.fakes.books import MemoryBooks
from tests.fakes.kafka import MemoryKafka

_P = ParamSpec("_P")
_T = TypeVar("_T")
_GARBAGE_AFTER = 20.0


@dataclass(eq=False)
class MemoryShelf:
    """Of one partition: its copies, and what lies in each object. `troubles` loads fail first."""

    copies: list[Copy] = field(default_factory=list)
    objects: dict[str, list[CopiedRecord]] = field(default_factory=dict)
    troubles: int = 0

    def listed(self, number: int, lanes: set[str]) -> Sequence[Copy]:
        """See Shelf."""
        found = [copy for copy in self.copies if copy.lane in lanes]
        return sorted(found, key=lambda copy: (copy.first, copy.lane))

    def load(self, key: str) -> Sequence[CopiedRecord]:
        """See Shelf."""
        if self.troubles:
            self.troubles -= 1
            raise TransientError("s3: switched off")
        return self.objects[key]


@dataclass(eq=False)
class MemoryArchive:
    """All of one consumer's: what Copies does, in its steps. ``announced``: objects, and when that was."""

    books: MemoryBooks
    clock: Callable[[], float]
    objects: dict[str, Sequence[CopiedRecord]] = field(default_factory=dict)
    announced: dict[str, tuple[int, float]] = field(default_factory=dict)
    _keys: int = 0

    def standing(self, numbers: Collection[int]) -> dict[int, dict[str, int]]:
        """See Copies."""
        rows = {number: self.books.rows.get(number, {}) for number in numbers}
        return {
            number: {name: row.first for name, row in found.items()}
            for number, found in rows.items()
            if found
        }

    def listed(self, number: int, lanes: Collection[str]) -> list[Copy]:
        """See Copies."""
        kept = self.books.copies.get(number, {})
        found = [copy for lane in lanes for copy in kept.get(lane, {}).values()]
        return sorted(found, key=lambda copy: (copy.first, copy.lane))

    def announce(self, number: int, fence: int) -> str:
        """An object is about to be put; its key."""
        self.books.require(number, fence)
        self._keys += 1
        self.announced[f"object {self._keys}"] = number, self.clock()
        return f"object {self._keys}"

    def put(self, key: str, records: Sequence[CopiedRecord]) -> None:
        """It is put."""
        self.objects[key] = records

    def load(self, key: str) -> Sequence[CopiedRecord]:
        """See Copies."""
        if key not in self.objects:
            raise TransientError(f"there is no {key}")
        return self.objects[key]

    def write(self, number: int, fence: int, found: Sequence[Copy]) -> None:
        """See Copies."""
        self.books.require(number, fence)
        if any(one.object is not None and one.object not in self.announced for one in found):
            raise TransientError("there is no such object")
        for one in found:
            if one.lane in self.books.rows.get(number, {}):
                self._write(self.books.copies.setdefault(number, {}).setdefault(one.lane, {}), one)

    @staticmethod
    def _write(copies: dict[int, Copy], one: Copy) -> None:
        before = [copy for copy in copies.values() if copy.end == one.first] if one.object is None else []
        for copy in before:
            copies[copy.first] = replace(copy, end=one.end)
        if not before and (one.first not in copies or copies[one.first].end <= one.end):
            copies[one.first] = one

    def explain(self, number: int, fence: int, reasons: Mapping[str, str]) -> int:
        """See Copies."""
        self.books.require(number, fence)
        rows = self.books.rows.get(number, {})
        changed = [lane for lane, reason in reasons.items() if lane in rows and rows[lane].reason != reason]
        rows |= {lane: replace(rows[lane], reason=reasons[lane]) for lane in changed}
        return len(changed)

    def unused(self, numbers: Collection[int]) -> list[str]:
        """Objects that no lane has anything in, long enough after they were announced."""
        copies = [
            copy
            for number in numbers
            for lane in self.books.copies.get(number, {}).values()
            for copy in lane.values()
        ]
        named = {copy.object for copy in copies}
        old = self.clock() - _GARBAGE_AFTER
        return [
            key
            for key, (number, at) in self.announced.items()
            if number in numbers and at < old and key not in named
        ]

    def delete(self, keys: Collection[str]) -> None:
        """These objects go."""
        for key in keys:
            self.objects.pop(key, None)

    def forget(self, keys: Collection[str]) -> None:
        """They are gone."""
        for key in keys:
            self.announced.pop(key, None)


@dataclass(frozen=True, slots=True)
class MemoryTimes:
    """When records were published."""

    kafka: MemoryKafka

    def beginnings(self) -> Mapping[int, int]:
        """See Times."""
        return self.kafka.begin

    def at(self, moments: Mapping[int, float]) -> Mapping[int, int]:
        """See Times."""
        return {
            number: bisect_left(self.kafka.published[number], moment) for number, moment in moments.items()
        }

    def published_at(self, positions: Mapping[int, int]) -> Mapping[int, float]:
        """See Times."""
        return {number: self.kafka.published[number][offset] for number, offset in positions.items()}


class AtOnce(Executor):
    """What is submitted is done by whoever submits it."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except PipelineError as error:
            future.set_exception(error)
        return future
