"""One merchant's records in a part of a partition: how many, from where to where, without running anything on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, cast

from pipeline.bridge.ranges import Range, RangeReader
from pipeline.ports import Record

Advance = Callable[[int], None]
"""Told the offset up to which a partition is read."""


class Found(NamedTuple):
    """One record of the merchant: its offset, when it was published, and its bytes as they came."""

    offset: int
    at: datetime
    value: bytes


class _Stamped(Record, Protocol):
    @property
    def timestamp(self) -> int: ...


def _published(record: Record) -> datetime:
    return datetime.fromtimestamp(cast(_Stamped, record).timestamp / 1000, UTC)


@dataclass(slots=True)
class Tally:
    """Events of one merchant, the first and the last of them; None while there is none."""

    events: int = 0
    first: Found | None = None
    last: Found | None = None


def records(
    reader: RangeReader, partition: int, part: Range, merchant: str, advance: Advance
) -> Iterator[Found]:
    """The merchant's records of that part, in order. Records without a value enter no lane, so they do not count."""
    key = merchant.encode()
    for found in reader.read({partition: part}):
        for record in found.get(partition, ()):
            if record.key == key and record.value is not None:
                yield Found(record.offset, _published(record), record.value)
        if window := found.get(partition):
            advance(window[-1].offset + 1)


def tally(
    reader: RangeReader,
    partition: int,
    part: Range,
    merchant: str,
    advance: Advance,
    most: int | None = None,
) -> Tally:
    """Count the merchant's records of that part, up to the `most` first ones."""
    done = Tally()
    if most == 0:
        return done
    for record in records(reader, partition, part, merchant, advance):
        done.events += 1
        done.first = done.first or record
        done.last = record
        if done.events == most:
            break
    return done


def begins(reader: RangeReader, partition: int, part: Range) -> datetime | None:
    """When the first record of that part was published, whosever it is; None when there is none."""
    for found in reader.read({partition: part}):
        for record in found.get(partition, ()):
            return _published(record)
    return None
