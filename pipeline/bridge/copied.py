"""A reader that goes on where Kafka's records begin too late: from copies of the lanes it reads for, then in Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from pipeline.bridge.copies import CopiedRecord, by_lane, covered
from pipeline.control.copies import Copy
from pipeline.errors import PositionLostError, TransientError
from pipeline.ports import Needs, Record, Rereader

_AGAIN_AFTER = 5.0

_log = structlog.get_logger()


class Reader(Rereader, Protocol):
    """One that can be closed."""

    def close(self) -> None:
        """Close the connection, if there is one."""


class Shelf(Protocol):
    """Where copies lie."""

    def listed(self, number: int, lanes: set[str]) -> Sequence[Copy]:
        """What is copied of these lanes, by offset."""

    def load(self, key: str) -> Sequence[CopiedRecord]:
        """What an object holds, by offset; TransientError when it cannot be had now."""


@dataclass(slots=True)
class _Place:
    """Where a partition is read from copies: the next offset is ``at``; Kafka has it from ``end`` on."""

    at: int
    end: int
    copies: list[Copy] = field(default_factory=list)
    asked: frozenset[str] = frozenset()


class CopiedRereader:
    """A Rereader over another. Objects are loaded in a thread, or by `loader`, so that whoever polls never waits for them.

    A lane that needs what neither Kafka nor a copy has is named by PositionLostError, before anything is passed over.
    """

    def __init__(
        self,
        reader: Reader,
        shelf: Shelf,
        clock: Callable[[], float] = time.monotonic,
        loader: Executor | None = None,
    ) -> None:
        self._reader = reader
        self._shelf = shelf
        self._clock = clock
        self._needs: dict[int, Needs] = {}
        self._places: dict[int, _Place] = {}
        self._paused: frozenset[int] = frozenset()
        self._loaded: dict[str, Future[Sequence[CopiedRecord]]] = {}
        self._not_before = float("-inf")
        self._loader = loader

    def seek(self, partition: int, offset: int, needs: Needs | None = None) -> None:
        """See Rereader."""
        self._forget(partition)
        if needs is not None:
            self._needs[partition] = needs
        self._reader.seek(partition, offset, needs)

    def pause(self, partitions: frozenset[int]) -> None:
        """See Rereader."""
        self._paused = partitions
        self._reader.pause(partitions)

    def drop(self, partition: int) -> None:
        """See Rereader."""
        if partition not in self._places:
            self._reader.drop(partition)
        self._forget(partition)

    def _forget(self, partition: int) -> None:
        self._needs.pop(partition, None)
        self._places.pop(partition, None)

    def position(self, partition: int) -> int:
        """See Rereader."""
        place = self._places.get(partition)
        return self._reader.position(partition) if place is None else place.at

    def poll(self, timeout: float, most: int | None = None) -> Mapping[int, Sequence[Record]]:
        """See Rereader."""
        brought: dict[int, Sequence[Record]] = {}
        try:
            for number in sorted(self._places.keys() - self._paused):
                if (batch := self._copied(number)) is not None:
                    brought[number] = batch
            self._tidy()
            for number, records in self._reader.poll(0.0 if brought else timeout, most).items():
                brought[number] = [
                    *brought.get(number, ()),
                    *records,
                ]  # a partition may just have left its copies
            return brought
        except PositionLostError as error:
            if not self._turns_to_copies(error) and not brought:
                raise
        except TransientError:
            if not brought:
                raise
        return brought  # whose places have moved; what failed is told by the next poll

    def close(self) -> None:
        """Close the reader, and end the thread if there is one."""
        self._reader.close()
        if self._loader is not None:
            self._loader.shutdown(wait=False, cancel_futures=True)

    def _turns_to_copies(self, error: PositionLostError) -> bool:
        """From now on these partitions are read from copies, when it is known for whom."""
        if error.lanes is not None or not error.first or error.first.keys() - self._needs.keys():
            return False
        for number, first in error.first.items():
            self._places[number] = _Place(self._reader.position(number), first)
            self._reader.drop(number)
        return True

    def _copied(self, number: int) -> list[CopiedRecord] | None:
        """The next records of a partition that is read from copies; None while they are being loaded.

        An empty list says that the position has moved: whoever joins from now on needs nothing before it.
        """
        place = self._places[number]
        wanted = {lane: need for lane, need in self._needs[number]().items() if need < place.end}
        self._look_up(number, place, wanted)
        useful = [one for one in place.copies if one.object and one.end > place.at and one.lane in wanted]
        here = {one.object: one for one in useful if one.first <= place.at}
        batches = [self._load(key) for key in here if key is not None]
        if None in batches:
            return None
        end = min([place.end, *(one.first if one.first > place.at else one.end for one in useful)])
        offsets = {record.offset: record for batch in batches if batch for record in batch}
        records = [offsets[offset] for offset in sorted(offsets) if place.at <= offset < end]
        place.at = end
        if end >= place.end:
            self.seek(number, end, self._needs[number])
        return records

    def _look_up(self, number: int, place: _Place, wanted: Mapping[str, int]) -> None:
        """Know the copies of all these lanes; PositionLostError names those that have a gap."""
        missing = self._missing(place, wanted)
        if missing or wanted.keys() - place.asked:
            place.copies = list(self._shelf.listed(number, set(wanted)))
            place.asked = frozenset(wanted)
            missing = self._missing(place, wanted)
        if missing:
            raise PositionLostError(
                f"partition {number}: offsets below {place.end} passed retention and are not copied",
                first={number: place.end},
                lanes=frozenset(missing),
            )

    @staticmethod
    def _missing(place: _Place, wanted: Mapping[str, int]) -> list[str]:
        found = by_lane(place.copies)
        return [lane for lane, need in wanted.items() if covered(found.get(lane, ()), need) < place.end]

    def _load(self, key: str) -> Sequence[CopiedRecord] | None:
        """What an object holds; None while it is on its way."""
        future = self._loaded.get(key)
        if future is None:
            if self._clock() >= self._not_before:
                self._loader = self._loader or ThreadPoolExecutor(1, "copies")
                self._loaded[key] = self._loader.submit(self._shelf.load, key)
            return None
        if not future.done():
            return None
        try:
            return future.result()
        except TransientError as error:
            _log.warning("a copy cannot be read now", key=key, error=str(error))
            del self._loaded[key]
            self._not_before = self._clock() + _AGAIN_AFTER
            return None

    def _tidy(self) -> None:
        """Let go of objects that nothing is read from any more."""
        needed = {one.object for place in self._places.values() for one in place.copies if one.end > place.at}
        for key in self._loaded.keys() - needed:
            del self._loaded[key]
