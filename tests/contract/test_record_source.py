"""The promises of a record source, kept by the one in memory and by a member of a real group alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pipeline.ports import Record
from tests.fakes.groups import BOTH, CHANGES, ROWS, Group, groups


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    yield from groups(request)


Flat = tuple[int, bytes | None, bytes | None]


@dataclass(slots=True)
class Reader:
    """Polls one member until something is true, and keeps what came."""

    group: Group
    most: int | None = None
    assigned: set[int] = field(default_factory=set)
    records: dict[int, list[Flat]] = field(default_factory=dict)
    largest: int = 0

    def until(self, done: Callable[[], bool]) -> None:
        self.group.wait(lambda: self._poll() or done())

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self._poll()

    def _poll(self) -> bool:
        polled = self.group.member.poll(0.1, self.most)
        self.assigned = (self.assigned - polled.revoked) | polled.assigned
        self._keep(polled.records)
        return False

    def _keep(self, records: Mapping[int, Sequence[Record]]) -> None:
        for partition, batch in records.items():
            self.largest = max(self.largest, len(batch))
            self.records.setdefault(partition, []).extend((one.offset, one.key, one.value) for one in batch)


@pytest.fixture
def reader(group: Group) -> Reader:
    """A reader of a member that has got both partitions."""
    reader = Reader(group)
    reader.until(lambda: reader.assigned == BOTH)
    return reader


def test_records_come_in_offset_order_with_key_and_value_as_they_were_sent(
    group: Group, reader: Reader
) -> None:
    sent: list[tuple[bytes | None, bytes | None]] = [(b"6", b"a"), (None, b"\xff"), (b"7", None), (b"6", b"")]
    for key, value in sent:
        group.append(ROWS, key, value)
    reader.until(lambda: len(reader.records.get(ROWS, [])) == 4)
    assert reader.records == {ROWS: [(offset, key, value) for offset, (key, value) in enumerate(sent)]}


def test_an_empty_topic_gives_nothing_within_the_timeout(group: Group, reader: Reader) -> None:
    reader.rounds(3)
    assert reader.records == {}
    assert group.member.position(CHANGES) == 0


def test_the_position_is_the_offset_the_next_poll_reads(group: Group, reader: Reader) -> None:
    group.append(CHANGES, b"6", b"a")
    group.append(CHANGES, b"6", b"b")
    reader.until(lambda: len(reader.records.get(CHANGES, [])) == 2)
    assert group.member.position(CHANGES) == 2


def test_seeking_back_reads_again_from_there(group: Group, reader: Reader) -> None:
    for value in (b"a", b"b", b"c"):
        group.append(CHANGES, b"6", value)
    reader.until(lambda: len(reader.records.get(CHANGES, [])) == 3)
    group.member.seek(CHANGES, 1)
    reader.records.clear()
    reader.until(lambda: len(reader.records.get(CHANGES, [])) == 2)
    assert [offset for offset, _, _ in reader.records[CHANGES]] == [1, 2]


def test_exactly_the_partitions_named_last_are_paused(group: Group, reader: Reader) -> None:
    group.member.pause(frozenset({CHANGES}))
    group.append(CHANGES, b"6", b"a")
    group.append(ROWS, b"7", b"b")
    reader.until(lambda: ROWS in reader.records)
    reader.rounds(3)
    assert CHANGES not in reader.records
    group.member.pause(frozenset({ROWS}))
    group.append(ROWS, b"7", b"c")
    reader.until(lambda: 0 in reader.records)
    reader.rounds(3)
    assert len(reader.records[ROWS]) == 1


FEW, COUNT = 3, 20


def offsets(reader: Reader, partition: int) -> list[int]:
    return [offset for offset, _, _ in reader.records.get(partition, [])]


def read_slices(group: Group, reader: Reader, *partitions: int) -> None:
    """Many records of each came at once, and the first few were handed out."""
    group.member.pause(BOTH)
    reader.rounds(3)
    for partition in partitions:
        for _ in range(COUNT):
            group.append(partition, b"6", b"x")
    group.member.pause(frozenset())
    reader.most = FEW
    reader.until(lambda: all(offsets(reader, partition) for partition in partitions))


def test_a_poll_brings_at_most_so_many_records_of_a_partition(group: Group, reader: Reader) -> None:
    # Mutant: Slices.cut() that hands out everything.
    read_slices(group, reader, CHANGES)
    group.append(ROWS, b"7", b"a")
    reader.until(lambda: ROWS in reader.records)
    reader.until(lambda: len(offsets(reader, CHANGES)) == COUNT)
    assert offsets(reader, CHANGES) == list(range(COUNT))
    assert reader.largest <= FEW
    for _ in range(COUNT):
        group.append(CHANGES, b"6", b"x")
    reader.until(lambda: len(offsets(reader, CHANGES)) == 2 * COUNT)  # and on, in Kafka
    assert offsets(reader, CHANGES) == list(range(2 * COUNT))


def test_the_position_is_that_of_the_next_slice(group: Group, reader: Reader) -> None:
    # Mutants: position() of the client, which is past what is kept; a poll that does not say what is left.
    read_slices(group, reader, CHANGES)
    assert offsets(reader, CHANGES) == list(range(FEW))
    assert group.member.position(CHANGES) == FEW
    assert group.member.poll(0.1, FEW).left[CHANGES] == COUNT - 2 * FEW


def test_a_partition_that_is_sought_gives_nothing_of_what_was_kept(group: Group, reader: Reader) -> None:
    # Mutant: seek() that keeps slices.
    read_slices(group, reader, CHANGES)
    group.member.seek(CHANGES, 10)
    reader.records.clear()
    reader.until(lambda: len(offsets(reader, CHANGES)) == COUNT - 10)
    assert offsets(reader, CHANGES) == list(range(10, COUNT))


def test_a_paused_partition_keeps_its_slices(group: Group, reader: Reader) -> None:
    # Mutant: cut() that hands out slices of paused partitions.
    read_slices(group, reader, CHANGES)
    group.member.pause(frozenset({CHANGES}))
    reader.rounds(3)
    assert len(offsets(reader, CHANGES)) == FEW
    group.member.pause(frozenset())
    reader.until(lambda: len(offsets(reader, CHANGES)) == COUNT)
    assert offsets(reader, CHANGES) == list(range(COUNT))


def test_slices_of_a_partition_that_is_taken_away_are_not_handed_out(group: Group, reader: Reader) -> None:
    # Mutant: a poll that forgets nothing of what was taken away.
    read_slices(group, reader, *BOTH)
    group.member.pause(BOTH)
    group.take_away()
    reader.until(lambda: len(reader.assigned) < 2)
    (gone,) = BOTH - reader.assigned
    there = offsets(reader, gone)
    group.member.pause(frozenset())
    reader.rounds(3)
    assert offsets(reader, gone) == there


def test_the_ends_are_the_offsets_after_the_last_records(group: Group, reader: Reader) -> None:
    group.append(ROWS, b"7", b"a")
    assert dict(group.member.ends(BOTH)) == {CHANGES: 0, ROWS: 1}


def test_a_partition_taken_away_is_told_and_no_longer_read(group: Group, reader: Reader) -> None:
    group.take_away()
    reader.until(lambda: len(reader.assigned) < 2)
    gone = BOTH - reader.assigned
    for partition in gone:
        group.append(partition, b"6", b"a")
    reader.rounds(3)
    assert not gone & reader.records.keys()
