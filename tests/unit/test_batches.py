"""Record batches are read as Kafka's client reads them, and what is damaged is said and not read."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c, encode_varint

from pipeline.bridge.batches import Fetched, PartitionRecords

PLACE = TopicPartition("datastream", 3)
HEADER = 61
LENGTH, ATTRIBUTES, LAST_DELTA, COUNT = 8, 21, 23, 57
NONE, GZIP, LZ4, ZSTD = 0, 1, 3, 4
CONTROL, LOG_APPEND_TIME = 0x20, 0x08
BYTES = st.none() | st.binary(max_size=300)
HEADERS = st.lists(st.tuples(st.text(max_size=5), BYTES), max_size=2)
RECORDS = st.lists(
    st.tuples(st.integers(0, 2**42), BYTES, BYTES, HEADERS), min_size=1, max_size=20
)  # Unix milliseconds, key, value, headers


def built(records: Any, base: int = 0, codec: int = NONE) -> bytearray:
    """A batch as Kafka's client builds it, at this offset."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 24)
    for index, (timestamp, key, value, headers) in enumerate(records):
        builder.append(index, timestamp, key, value, headers)
    return bytearray(struct.pack(">q", base)) + bytearray(builder.build())[8:]


def signed(batch: bytearray) -> bytes:
    """With the length and the checksum that belong to what is in it now."""
    struct.pack_into(">i", batch, LENGTH, len(batch) - 12)
    struct.pack_into(">I", batch, ATTRIBUTES - 4, calc_crc32c(memoryview(batch)[ATTRIBUTES:]))
    return bytes(batch)


def reader(data: bytes, first: int = 0, kind: Any = PartitionRecords, **options: Any) -> Any:
    return kind(first, PLACE, MemoryRecords(data), **options)


def plain(records: Any) -> list[tuple[Any, ...]]:
    return [(one.offset, one.timestamp, one.key, one.value) for one in records]


@given(
    batches=st.lists(RECORDS, min_size=1, max_size=3),
    codec=st.sampled_from([NONE, GZIP, LZ4, ZSTD]),
    data=st.data(),
)
def test_batches_are_read_as_the_client_reads_them(batches: Any, codec: int, data: Any) -> None:
    # Mutants: `_number` takes two bytes for one, forgets the sign, or reads no third byte; a record that is null is b"".
    base, whole = 7, b""
    for records in batches:
        batch = built(records, base, codec)
        struct.pack_into(">i", batch, LAST_DELTA, len(records) + 1)  # compaction took the last two
        whole += signed(batch)
        base += len(records) + 2
    first, most = data.draw(st.integers(0, base)), data.draw(st.integers(1, 30))
    ours, theirs = reader(whole, first), reader(whole, first, Fetcher.PartitionRecords)
    while theirs:
        assert plain(ours.take(most)) == plain(theirs.take(most))
        assert (ours.next_fetch_offset, bool(ours)) == (theirs.next_fetch_offset, bool(theirs))


def test_the_client_is_told_that_a_partition_brought_something() -> None:
    # It puts such a partition behind the others in its next fetch. Mutant: nothing is counted.
    drained: list[Any] = []
    records = reader(bytes(built([(1, b"k", b"v", [])] * 3)), on_drain=drained.append)
    records.take()
    assert drained == [records]
    assert (records.bytes_read > 0, records.records_read) == (True, 3)


def test_what_is_taken_in_parts_goes_on_where_it_was() -> None:
    # Mutant: records do not move the next offset, only their batch does.
    records = reader(bytes(built([(1, b"k", b"%d" % n, []) for n in range(5)], 10)))
    assert [one.offset for one in records.take(2)] == [10, 11]
    assert records.next_fetch_offset == 12
    assert [one.value for one in records.take(9)] == [b"2", b"3", b"4"]
    assert records.next_fetch_offset == 15


def test_a_batch_whose_end_was_compacted_is_not_read_again() -> None:
    # Mutant: the next offset follows the last record.
    batch = built([(1, b"k", b"v", [])], 10)
    struct.pack_into(">i", batch, LAST_DELTA, 4)
    records = reader(signed(batch))
    assert len(records.take()) == 1
    assert records.next_fetch_offset == 15


def test_control_batches_are_passed_over() -> None:
    # Mutant: control batches are read like others.
    batch = built([(1, b"\0\0\0\1", b"\0\0\0\0\0\0", [])], 10)
    struct.pack_into(">h", batch, ATTRIBUTES, CONTROL)
    records = reader(signed(batch) + bytes(built([(1, b"k", b"v", [])], 11)))
    assert plain(records.take()) == [(11, 1, b"k", b"v")]


def test_the_brokers_time_is_taken_where_it_counts() -> None:
    # Mutant: `appended` is None always.
    batch = built([(5, b"k", b"v", []), (9, b"k", b"w", [])])
    struct.pack_into(">h", batch, ATTRIBUTES, LOG_APPEND_TIME)
    assert [one.timestamp for one in reader(signed(batch)).take()] == [9, 9]


def test_formats_of_old_are_read_too() -> None:
    # Mutants: no `_unpack_old`; it counts nothing.
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    for offset in (4, 5):
        builder.append(offset, 11, b"k", b"v")
    drained: list[Any] = []
    records = reader(bytes(builder.build()), on_drain=drained.append)
    assert records.take() == [Fetched(4, 11, b"k", b"v"), Fetched(5, 11, b"k", b"v")]
    assert drained == [records]
    assert (records.bytes_read > 0, records.records_read) == (True, 2)


def test_a_byte_that_changed_is_noticed() -> None:
    # Mutant: checksums are not looked at.
    batch = built([(1, b"k", b"v", [])], 10)
    batch[-2] ^= 1
    with pytest.raises(
        CorruptRecordError, match="datastream partition 3: what lies at offset 10 does not have its checksum"
    ):
        reader(bytes(batch)).take()


def test_what_came_before_a_damaged_batch_is_given_and_then_it_is_said() -> None:
    damaged = built([(1, b"k", b"v", [])], 11)
    damaged[-2] ^= 1
    records = reader(bytes(built([(1, b"k", b"u", [])], 10)) + bytes(damaged))
    assert [one.value for one in records.take()] == [b"u"]
    assert records.next_fetch_offset == 11
    with pytest.raises(CorruptRecordError):
        records.take()


def _record(length: int, *parts: bytes) -> bytes:
    out = bytearray()
    encode_varint(length, out.append)
    return bytes(out) + b"".join(parts)


WHOLE = (b"\0", b"\0", b"\0", b"\2k", b"\2v", b"\0")  # attributes, time, offset, key, value, headers


@pytest.mark.parametrize(
    ("body", "count", "said"),
    [
        (_record(8, *WHOLE), 2, "ends within a record"),  # mutant: IndexError is let through
        (_record(8, *WHOLE), 0, "has another length than its records"),  # mutant: no look at what is left
        (_record(8, *WHOLE) + b"\0", 1, "has another length than its records"),
        (_record(4, *WHOLE), 1, "ends within a record"),  # mutant: a value may reach over its record's end
        (_record(-8, *WHOLE), 1, "ends within a record"),
        (_record(8, *WHOLE[:3], b"\2k", b"\x7ev", b"\0"), 1, "ends within a record"),
        (_record(9, *WHOLE), 1, "has another length than its records"),
    ],
)  # fmt: skip
def test_a_batch_that_is_not_what_it_says_is_refused(body: bytes, count: int, said: str) -> None:
    batch = built([(1, b"k", b"v", [])], 10)[:HEADER] + body
    struct.pack_into(">i", batch, COUNT, count)
    with pytest.raises(CorruptRecordError, match=f"offset 10 {said}"):
        reader(signed(bytearray(batch))).take()
