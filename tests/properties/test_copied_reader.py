"""Whatever is copied in whatever pieces: each lane gets all its records in order, or is named before one is passed over."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.process import wait_until
from pipeline.bridge.copied import CopiedRereader
from pipeline.bridge.copies import CopiedRecord, decode, encode
from pipeline.control.copies import Copy
from pipeline.errors import PositionLostError, TransientError
from tests.fakes.copies import AtOnce, MemoryShelf
from tests.fakes.kafka import MemoryKafka, MemoryRereader

LANES = ("1", "2", "3")


@dataclass
class Reading:
    """As a cursor: serves lanes from where each needs, drops those that are named, takes others along on its way."""

    reader: CopiedRereader
    end: int
    needs: dict[str, int]
    joining: list[tuple[str, int]] = field(default_factory=list)
    began: dict[str, int] = field(default_factory=dict)
    got: dict[str, list[int]] = field(default_factory=lambda: {lane: [] for lane in LANES})
    lost: dict[str, int] = field(default_factory=dict)
    position: int = 0

    def run(self) -> None:
        self.begin()
        assert wait_until(self.over, 20, pause=0)

    def begin(self) -> None:
        self.began |= self.needs
        self.position = min(self.needs.values(), default=0)
        self.reader.seek(0, self.position, lambda: dict(self.needs))

    def over(self) -> bool:
        self._join()
        try:
            batches = self.reader.poll(0.0)
        except PositionLostError as error:
            assert error.lanes
            for lane in error.lanes:
                self.lost[lane] = self.needs.pop(lane)
            self.reader.seek(0, self.position, lambda: dict(self.needs))
            return False
        if 0 in batches:
            self._take([(record.offset, (record.key or b"").decode()) for record in batches[0]])
        return self.position >= self.end

    def _take(self, records: list[tuple[int, str]]) -> None:
        for offset, lane in records:
            if lane in self.needs and offset >= self.needs[lane]:
                self.got[lane].append(offset)
                self.needs[lane] = offset + 1
        self.position = self.reader.position(0)

    def _join(self) -> None:
        for lane, need in list(self.joining):
            if need >= self.position and lane not in self.began:
                self.joining.remove((lane, need))
                self.began[lane] = self.needs[lane] = need


@st.composite
def histories(draw: st.DrawFn) -> tuple[MemoryKafka, MemoryShelf, Reading]:
    """A partition of three merchants, what is left of it, and copies in pieces, of which some may be missing."""
    owners = draw(st.lists(st.sampled_from(LANES), min_size=6, max_size=24))
    end = len(owners)
    kafka, shelf = MemoryKafka(1), MemoryShelf()
    for lane in owners:
        kafka.append(0, lane.encode(), lane.encode())
    kafka.begin[0] = draw(st.integers(end // 2, end))
    for number in range(draw(st.integers(1, 3))):
        _copy(draw, kafka, shelf, f"pass {number}", end)
    served = draw(st.sets(st.sampled_from(LANES), min_size=1))
    needs = {lane: draw(st.integers(0, end // 2)) for lane in sorted(served)}
    joining = [(lane, draw(st.integers(0, end))) for lane in LANES if lane not in needs]
    shelf.troubles = draw(st.integers(0, 1))
    now = iter(range(0, 10**9, 10))
    reader = CopiedRereader(MemoryRereader(kafka, most=4), shelf, clock=lambda: float(next(now)))
    return kafka, shelf, Reading(reader, end, needs, joining)


def _copy(draw: st.DrawFn, kafka: MemoryKafka, shelf: MemoryShelf, name: str, end: int) -> None:
    """One pass of a copier: some lanes, each from an offset of its own, in chunks up to the same end."""
    lanes = sorted(draw(st.sets(st.sampled_from(LANES), min_size=1)))
    starts = {lane: draw(st.sampled_from((0, 0, 0, end // 3, end))) for lane in lanes}
    cuts = [*sorted(draw(st.lists(st.integers(0, end), max_size=3))), end]
    begin = 0
    for number, cut in enumerate(cuts):
        key = f"{name} {number}"
        records = [
            CopiedRecord(one.offset, one.key, one.value)
            for one in kafka.logs[0][begin:cut]
            if (one.key or b"").decode() in lanes and one.offset >= starts[(one.key or b"").decode()]
        ]
        shelf.objects[key] = decode(encode(records))
        for lane in lanes:
            if starts[lane] < cut:
                has = any(record.key == lane.encode() for record in records)
                shelf.copies.append(Copy(lane, starts[lane], cut, key if has else None))
                starts[lane] = cut
        begin = cut


@given(histories())
def test_each_lane_gets_everything_or_is_named(history: tuple[MemoryKafka, MemoryShelf, Reading]) -> None:
    # Mutants: no check of coverage; only the first lane's object is read where several overlap; windows that contain
    # nothing do not move the position, and a lane that joins behind it loses; the end of a copy is not a window's end.
    kafka, _, reading = history
    reading.run()
    reading.reader.close()
    for lane, first in reading.began.items():
        own = [one.offset for one in kafka.logs[0] if one.key == lane.encode() and one.offset >= first]
        if lane in reading.lost:
            assert reading.lost[lane] < kafka.begin[0]
            assert reading.got[lane] == [offset for offset in own if offset < reading.lost[lane]]
        else:
            assert reading.got[lane] == own


def test_objects_that_overlap_are_read_together_and_an_empty_stretch_moves_the_position() -> None:
    # Mutants: only the first of several objects at a place is read; an empty stretch is not told, so that lane 3 joins
    # behind the position and misses its records.
    kafka = MemoryKafka(1)
    for lane in ("1", "2", "1", "2", "3", "3", "1", "2"):
        kafka.append(0, lane.encode(), lane.encode())
    kafka.begin[0] = 8
    kept = [CopiedRecord(one.offset, one.key, one.value) for one in kafka.logs[0]]

    def of(lane: str, first: int, end: int) -> list[CopiedRecord]:
        return [one for one in kept if one.key == lane.encode() and first <= one.offset < end]

    found = [("1", 0, 3, "a"), ("1", 3, 6, None), ("1", 6, 8, "b"), ("2", 0, 4, "c"), ("2", 4, 7, None)]
    found += [("2", 7, 8, "d"), ("3", 0, 8, "e")]
    shelf = MemoryShelf(
        [Copy(*one) for one in found],
        {"a": of("1", 0, 3), "b": of("1", 6, 8), "c": of("2", 0, 4), "d": of("2", 7, 8), "e": of("3", 0, 8)},
    )
    reader = CopiedRereader(MemoryRereader(kafka), shelf)
    reading = Reading(reader, 8, {"1": 0, "2": 0})

    def over() -> bool:
        if reader.position(0) == 6:
            reading.joining = [("3", 5)]
        return reading.over()

    reading.begin()
    assert wait_until(over, 20, pause=0)
    reader.close()
    assert reading.got == {"1": [0, 2, 6], "2": [1, 3, 7], "3": []}
    assert "3" not in reading.began


def test_what_one_partition_has_brought_is_given_on_when_another_fails() -> None:
    # Mutant: TransientError is raised, and what was read from copies, whose position has moved, is gone.
    kafka = MemoryKafka(2)
    for number in (0, 0, 1):
        kafka.append(number, b"1", b"1")
    kafka.begin[0] = 2
    kept = [CopiedRecord(one.offset, one.key, one.value) for one in kafka.logs[0]]
    shelf = MemoryShelf([Copy("1", 0, 2, "a")], {"a": kept})
    reader = CopiedRereader(MemoryRereader(kafka), shelf, loader=AtOnce())
    reader.seek(0, 0, lambda: {"1": 0})
    assert [reader.poll(0.0), reader.poll(0.0)] == [{}, {}]  # turns to the copies, then loads
    reader.seek(1, 0, lambda: {"1": 0})
    kafka.available = False
    assert reader.poll(0.0) == {0: kept}
    with pytest.raises(TransientError):
        reader.poll(0.0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**62), st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=50)
        )
    )
)
def test_an_object_gives_back_what_was_put_into_it(
    records: list[tuple[int, bytes | None, bytes | None]],
) -> None:
    kept = [CopiedRecord(*record) for record in records]
    assert decode(encode(kept)) == kept
