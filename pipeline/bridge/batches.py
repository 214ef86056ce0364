"""What a fetch brought, as records: Kafka's record batches (format 2), read faster than its client does.

The client reads each number of a record through a function, and a record through four objects. Here a batch is read in one
loop, into what readers ask for. Layout: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError

_FORMAT = 2


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """A record of a topic; `timestamp` in milliseconds of Unix time."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the client has no types
    """The client's, which reads batches as here. Aborted transactions are read too, as is the client's default."""

    def _unpack_records(self, tp: Any, records: Any, *_: object) -> Iterator[Fetched]:
        while (batch := records.next_batch()) is not None:
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(_says(tp, batch.base_offset, "does not have its checksum"))
            if batch.magic < _FORMAT:
                yield from self._unpack_old(tp, batch)
                continue
            self.leader_epoch = batch.leader_epoch
            # The client puts a partition that brought something behind the others in its next fetch.
            self.bytes_read += batch.size_in_bytes
            self.records_read += batch.records_count
            if not batch.is_control_batch:
                try:
                    found = read(batch)
                except CorruptRecordError as error:
                    raise CorruptRecordError(_says(tp, batch.base_offset, error.args[0])) from error
                for record in found:
                    self.next_fetch_offset = record.offset + 1
                    yield record
            # Compaction takes a batch's last records, but not its last offset.
            self.next_fetch_offset = batch.next_offset
        self.drain()

    def _unpack_old(self, tp: Any, batch: Any) -> Iterator[Fetched]:
        for record in batch:
            if self.check_crcs and not record.validate_crc():
                raise CorruptRecordError(_says(tp, record.offset, "does not have its checksum"))
            self.bytes_read += record.size_in_bytes
            self.records_read += 1
            self.next_fetch_offset = record.offset + 1
            yield Fetched(record.offset, record.timestamp, record.key, record.value)


def _says(tp: Any, offset: int, what: str) -> str:
    return f"{tp.topic} partition {tp.partition}: what lies at offset {offset} {what}"


def read(batch: Any) -> list[Fetched]:
    """The records of a client's batch of format 2. CorruptRecordError when it is not what its header says."""
    batch._maybe_uncompress()
    data, at = bytes(batch._buffer), batch._pos
    base, first = batch.base_offset, batch.first_timestamp
    appended = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
    found: list[Fetched] = []
    # A number is a varint of its zigzag form. Offsets and lengths of keys, mostly of one byte, are read in place.
    try:
        for _ in range(batch.records_count):
            number, at = _number(data, at)
            end = at + number
            at += 1  # its attributes, of which there are none
            number, at = _number(data, at)
            timestamp = first + number if appended is None else appended
            if (byte := data[at]) & 0x81:
                number, at = _number(data, at)
            else:
                number, at = byte >> 1, at + 1
            offset = base + number
            if (byte := data[at]) & 0x81:
                number, at = _number(data, at)
            else:
                number, at = byte >> 1, at + 1
            key = data[at : (at := at + number)] if number >= 0 else None
            number, at = _number(data, at)
            value = data[at : (at := at + number)] if number >= 0 else None
            if at >= end:  # behind the value stands how many headers there are
                raise CorruptRecordError("ends within a record")
            at = end
            found.append(Fetched(offset, timestamp, key, value))
    except IndexError:
        raise CorruptRecordError("ends within a record") from None
    if at != len(data):
        raise CorruptRecordError("has another length than its records")
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    low, high = data[at], data[at + 1]
    if low < 0x80:
        return (low >> 1) ^ -(low & 1), at + 1
    if high < 0x80:
        raw = low & 0x7F | high << 7
        return (raw >> 1) ^ -(raw & 1), at + 2
    raw, shift, at = low & 0x7F, 7, at + 1
    while (byte := data[at]) >= 0x80:
        raw |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
    raw |= byte << shift
    return (raw >> 1) ^ -(raw & 1), at + 1
