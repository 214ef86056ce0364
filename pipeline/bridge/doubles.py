"""Drops what a relay published twice: a batch that was not finished comes again, whole and in the same order.

Within one partition, one source's changes stand in the order of their positions (generation, tick, ev_id, sub): a relay
begins a tick only when everything before it is in Kafka, and writes each tick in order from its start. So a change that
is not above the highest position read before it has been read before. What is no change (a snapshot's rows, what
cannot be parsed) has no position and always passes.

The position that is saved is the one belonging to the committed offset, never the newest: a bridge that restarts reads
again from that offset, and would take everything between the two for doubles.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from pipeline.ports import Record

Position = tuple[int, int, int, int]
_CHANGES = frozenset(("c", "u", "d", "event"))
_NOTE_BYTES = 4000  # brokers refuse notes beyond offset.metadata.max.bytes, 4096
_POINTS = 100


class _Head(msgspec.Struct, gc=False):
    e: Literal[1]
    op: str
    merchant: str
    src: str
    gen: int
    tick: int
    ev: int
    sub: int


class _Note(msgspec.Struct):
    at: int
    seen: dict[str, Position]


_head = msgspec.json.Decoder(_Head)
_note = msgspec.json.Decoder(_Note)


class Doubles:
    """What was read of one partition, from the committed offset on."""

    def __init__(self, committed: int, seen: Mapping[str, Position]) -> None:
        self.dropped = 0
        self._seen = dict(seen)
        # States by offset: what had been read before it. The first is at or below the committed offset.
        self._offsets = [committed]
        self._states = [dict(seen)]

    @classmethod
    def noted(cls, committed: int, note: str) -> Doubles:
        """As `note` saved it with `committed`; a note of anything else says nothing, and then nothing is a double."""
        try:
            found = _note.decode(note)
        except msgspec.DecodeError:
            return cls(committed, {})
        return cls(committed, found.seen if found.at == committed else {})

    def without(self, records: Sequence[Record]) -> Sequence[Record]:
        """The next records, without those read before."""
        fresh = [record for record in records if self._is_fresh(record.key, record.value)]
        self.dropped += len(records) - len(fresh)
        self._offsets.append(records[-1].offset + 1)
        self._states.append(dict(self._seen))
        if len(self._offsets) > _POINTS:
            self._thin()
        return fresh

    def note(self, committed: int) -> str:
        """What to save with this offset."""
        note = _Note(committed, {})
        left = _NOTE_BYTES - len(_encoded(note))
        for source, position in self._state(committed).items():
            left -= len(msgspec.json.encode({source: position}))
            if left < 0:
                break
            note.seen[source] = position
        return _encoded(note).decode()

    def at(self, committed: int) -> Doubles:
        """As it was when that offset was to be read next."""
        again = Doubles(committed, self._state(committed))
        again.dropped = self.dropped
        return again

    def forget(self, committed: int) -> None:
        """Nothing below this offset will be asked for."""
        first = bisect_right(self._offsets, committed) - 1
        del self._offsets[:first], self._states[:first]

    def _is_fresh(self, key: bytes | None, value: bytes | None) -> bool:
        if value is None or key is None:
            return True
        try:
            head = _head.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return True
        if head.op not in _CHANGES or head.merchant.encode() != key:
            return True  # whatever else it is, no relay has published it: it is for the lanes to judge
        position = (head.gen, head.tick, head.ev, head.sub)
        last = self._seen.get(head.src)
        if last is not None and position <= last:
            return False
        self._seen[head.src] = position
        return True

    def _state(self, offset: int) -> Mapping[str, Position]:
        """What had been read before `offset`, or before an earlier one: that drops less, and never too much."""
        return self._states[bisect_right(self._offsets, offset) - 1]

    def _thin(self) -> None:
        """Every second one, so that a commit that stands still does not fill the memory."""
        del self._offsets[1::2], self._states[1::2]


def _encoded(note: _Note) -> bytes:
    return msgspec.json.encode(note)
