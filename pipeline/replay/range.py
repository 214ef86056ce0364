"""What to read of a topic: from and to places that people name, and each partition's records as the lanes got them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.bridge.doubles import Doubles
from pipeline.bridge.ranges import Range, RangeReader
from pipeline.domain.event import merchant_of_key
from pipeline.domain.routing import partition_of
from pipeline.domain.sweep import decode_sweep
from pipeline.errors import PermanentError, PositionLostError
from pipeline.ports import Record
from pipeline.replay.turns import Published, Told

Place = datetime | Mapping[int | None, int] | None
"""A moment; offsets by partition, or under None of the only partition there is; None: the very beginning or end."""

_OFFSETS = re.compile(r"(\d+:)?\d+(,\d+:\d+)*")


def place(text: str, *, edge: str) -> Place:
    """What a person wrote: `edge` ("beginning" or "end"), an ISO time, an offset, or ``P:OFFSET,…``. Else ValueError."""
    if text == edge:
        return None
    if _OFFSETS.fullmatch(text):
        pairs = [part.rpartition(":") for part in text.split(",")]
        return {int(partition) if partition else None: int(offset) for partition, _, offset in pairs}
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text}" is not "{edge}", an ISO time, OFFSET or PARTITION:OFFSET,…') from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def ranges(reader: RangeReader, first: Place, end: Place, partitions: Collection[int]) -> dict[int, Range]:
    """What lies between both places in these partitions. PositionLostError when retention has taken some of it."""
    bounds = reader.bounds()
    if missing := sorted(set(partitions) - bounds.keys()):
        raise PermanentError(
            f"topic {reader.topic} has no partition {missing[0]}", hint="run: pipeline check"
        )
    bounds = {partition: bounds[partition] for partition in partitions}
    firsts = _offsets(reader, first, bounds, {partition: bound.first for partition, bound in bounds.items()})
    ends = _offsets(reader, end, bounds, {partition: bound.end for partition, bound in bounds.items()})
    if isinstance(first, Mapping):
        _require_kept(reader.topic, firsts, bounds)
        firsts = {partition: firsts.get(partition, bound.end) for partition, bound in bounds.items()}
    return {
        partition: Range(firsts[partition], min(ends.get(partition, bound.end), bound.end))
        for partition, bound in bounds.items()
    }


def _offsets(
    reader: RangeReader, place: Place, bounds: Mapping[int, Range], edge: Mapping[int, int]
) -> Mapping[int, int]:
    if place is None:
        return edge
    if isinstance(place, datetime):
        return reader.at(place, bounds)
    if None in place and len(bounds) != 1:
        raise PermanentError(
            f"an offset alone names no place in {len(bounds)} partitions",
            hint="write PARTITION:OFFSET, or name merchants of one partition",
        )
    (only, *_) = bounds
    named = {only if partition is None else partition: offset for partition, offset in place.items()}
    if unknown := sorted(named.keys() - bounds.keys()):
        raise PermanentError(f"partition {unknown[0]} is not replayed", hint="see --merchant")
    return named


def _require_kept(topic: str, firsts: Mapping[int, int], bounds: Mapping[int, Range]) -> None:
    for partition, offset in firsts.items():
        if offset < bounds[partition].first:
            raise PositionLostError(
                f"{topic}: offset {offset} of partition {partition} passed retention, its first is now"
                f" {bounds[partition].first}",
                hint="what is gone from Kafka comes by a snapshot only",
            )


@dataclass(slots=True)
class Replayable:
    """The records of ranges of a topic that belong to these merchants, or to all; sweeps and doubles are left out."""

    reader: RangeReader
    ranges: Mapping[int, Range]
    partitions: int
    merchants: frozenset[str]
    positions: dict[int, int] = field(init=False)
    _sweeps: int = field(default=0, init=False)
    _doubles: dict[int, Doubles] = field(init=False)

    def __post_init__(self) -> None:
        self.positions = {partition: one.first for partition, one in self.ranges.items()}
        self._doubles = {partition: Doubles(one.first, {}) for partition, one in self.ranges.items()}

    @property
    def total(self) -> int:
        """Offsets to be read."""
        return sum(max(0, one.end - one.first) for one in self.ranges.values())

    @property
    def read(self) -> int:
        """Offsets done with."""
        return sum(self.positions[partition] - one.first for partition, one in self.ranges.items())

    @property
    def left_out(self) -> dict[str, int]:
        """What was read and is not replayed: sweeps, and what a relay had published twice."""
        doubles = sum(doubles.dropped for doubles in self._doubles.values())
        return {"sweeps": self._sweeps, "doubles": doubles}

    def windows(self) -> Iterator[list[Published | Told]]:
        """A few megabytes at a time. ``positions`` moves past a window when the next one is asked for."""
        for found in self.reader.read(self.ranges):
            yield [
                one
                for partition, records in found.items()
                if records
                for record in self._doubles[partition].without(records)
                for one in self._chosen(partition, record)
            ]
            self._move(found)

    def _move(self, found: Mapping[int, Sequence[Record]]) -> None:
        self.positions.update({partition: got[-1].offset + 1 for partition, got in found.items() if got})

    def _chosen(self, partition: int, record: Record) -> Iterator[Published | Told]:
        merchant, value = merchant_of_key(record.key), record.value
        if record.key is None and decode_sweep(value) is not None:
            self._sweeps += 1
        elif merchant is not None and partition_of(merchant, self.partitions) == partition:
            if not self.merchants or merchant in self.merchants:
                yield Published(merchant, partition, record.offset, value or b"")
        elif not self.merchants:
            strange = Published("", partition, record.offset, value or b"")
            yield Told(strange, "rejected", "the record's key is no merchant of this partition")
