"""What relays publish twice comes once; what they publish once always comes, wherever bridges stop and start again."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bridge.doubles import Doubles, Position
from pipeline.domain.sweep import Sweep, encode_sweep
from pipeline.ports import Record
from tests.fakes.kafka import MemoryRecord
from tests.fakes.turns import event

MERCHANT = b"6"


@dataclass(slots=True)
class Partition:
    """One partition, written by one source's relays, one of which may wake up late."""

    log: list[MemoryRecord] = field(default_factory=list)
    late: list[bytes] = field(default_factory=list)

    def publish(self, value: bytes) -> None:
        self.log.append(MemoryRecord(len(self.log), MERCHANT, value))

    def publish_late(self, count: int) -> None:
        """A relay that lost its session still has records on the way: the next of those it was sending."""
        for value in self.late[:count]:
            self.publish(value)
        del self.late[:count]


def change(generation: int, tick: int, ev: int, op: str = "u") -> bytes:
    made = msgspec.structs.replace(
        event(ev, {"id": ev}), gen=generation, tick=tick, op=op, ver=f"{generation}{tick:06}{ev:06}"
    )
    return msgspec.json.encode(made)


@st.composite
def histories(draw: st.DrawFn) -> Partition:
    """Batches, each begun by any number of relays before one finishes it; long transactions make ev_ids go back."""
    partition, generation, ev = Partition(), 1, 100
    for tick in range(1, draw(st.integers(1, 8))):
        if draw(st.integers(0, 9)) == 0:
            generation, ev = generation + 1, draw(st.integers(1, 100))
        older = draw(st.sets(st.integers(1, ev - 1), max_size=2)) if ev > 1 else set()
        newer = list(range(ev, ev + draw(st.integers(0, 4))))
        ev += len(newer)
        batch = [change(generation, tick, number) for number in sorted({*older, *newer})]
        for sent in draw(st.lists(st.integers(0, len(batch)), max_size=2)):
            for value in batch[:sent]:
                partition.publish(value)
            if draw(st.booleans()):
                partition.late = batch[sent:]
        for value in batch:
            partition.publish_late(draw(st.integers(0, 1)))
            partition.publish(value)
        if draw(st.integers(0, 3)) == 0:
            partition.publish(change(generation, 0, 0, "r"))
    return partition


def position(value: bytes) -> Position:
    head = msgspec.json.decode(value)
    return head["gen"], head["tick"], head["ev"], head["sub"]


def changes(log: Sequence[Record]) -> list[Position]:
    """The changes of a log, each once, in order of their first delivery."""
    values = [record.value or b"" for record in log]
    return list(dict.fromkeys(position(value) for value in values if b'"op":"r"' not in value))


@given(partition=histories(), most=st.integers(1, 5))
def test_each_change_comes_exactly_once(partition: Partition, most: int) -> None:
    doubles = Doubles(0, {})
    delivered: list[Record] = []
    for start in range(0, len(partition.log), most):
        delivered += doubles.without(partition.log[start : start + most])
    fresh = [
        position(record.value or b"") for record in delivered if b'"op":"r"' not in (record.value or b"")
    ]
    assert fresh == changes(partition.log)
    assert len(delivered) + doubles.dropped == len(partition.log)


@settings(max_examples=200)
@given(partition=histories(), data=st.data())
def test_a_bridge_that_starts_again_loses_nothing(partition: Partition, data: st.DataObject) -> None:
    # Mutant: `note` with the newest position seen, instead of the committed offset's.
    committed, note = 0, ""
    delivered: list[Record] = []
    while True:
        doubles, at = Doubles.noted(committed, note), committed
        life = data.draw(st.integers(0, 6))
        for _ in range(life):
            chunk = partition.log[at : at + data.draw(st.integers(1, 4))]
            if not chunk:
                break
            delivered += doubles.without(chunk)
            at = chunk[-1].offset + 1
            if data.draw(st.booleans()):
                committed = data.draw(st.integers(committed, at))
                note = doubles.note(committed)
                doubles.forget(committed)
            elif data.draw(st.integers(0, 9)) == 0:
                doubles, at = doubles.at(committed), committed
        if at >= len(partition.log):
            break
    first = list({record.offset: record for record in delivered}.values())
    assert changes(sorted(first, key=lambda record: record.offset)) == changes(partition.log)
    assert changes(delivered) == changes(partition.log)


def records(values: list[bytes]) -> list[MemoryRecord]:
    return [MemoryRecord(offset, MERCHANT, value) for offset, value in enumerate(values)]


def test_the_saved_position_is_the_committed_offsets() -> None:
    # Mutant: as above.
    log = records([change(1, 1, ev) for ev in range(1, 11)])
    doubles = Doubles(0, {})
    for record in log:
        doubles.without([record])
    again = Doubles.noted(4, doubles.note(4))
    assert again.without(log[4:]) == log[4:]
    assert list(again.without(log[:4])) == []


def test_a_note_of_another_offset_says_nothing() -> None:
    # Mutant: without comparing the offset, offsets set back by hand keep the newer note.
    log = records([change(1, 1, ev) for ev in range(1, 11)])
    doubles = Doubles(0, {})
    doubles.without(log)
    note = doubles.note(10)
    for lost in (Doubles.noted(0, note), Doubles.noted(0, ""), Doubles.noted(0, "{"), Doubles.noted(0, "[]")):
        assert lost.without(log) == log


def test_sources_do_not_know_each_other_and_what_is_no_change_passes() -> None:
    mine, other = event(5, {"id": 1}), msgspec.structs.replace(event(4, {"id": 1}), src="gateway1")
    values = [msgspec.json.encode(each) for each in (mine, other)]
    log = records([*values, b"{", b"", *values])
    doubles = Doubles(0, {})
    assert [record.offset for record in doubles.without(log)] == [0, 1, 2, 3]
    assert doubles.dropped == 2
    assert doubles.without([MemoryRecord(6, MERCHANT, None)])


def test_sweeps_pass_however_often_they_are_published() -> None:
    # Mutant: a record without key taken for one of the merchant whose change was read before it.
    sweep = encode_sweep(Sweep(1, "sweep", "1", "gateway0", "public.t", "t", None, "7", "truncate"))
    log = [
        MemoryRecord(0, MERCHANT, msgspec.json.encode(event(5, {"id": 1}))),
        MemoryRecord(1, None, sweep),
        MemoryRecord(2, None, sweep),
    ]
    doubles = Doubles(0, {})
    assert list(doubles.without(log)) == log
    assert doubles.dropped == 0
    # Mutant: RecursionError, and every bridge that reads this partition ends here.
    assert doubles.without([MemoryRecord(7, MERCHANT, b'{"after":' + b"[" * 100_000)])


def test_a_commit_that_stands_still_fills_no_memory_and_loses_nothing() -> None:
    log = records([change(1, 1, ev) for ev in range(1, 5001)])
    doubles = Doubles(0, {})
    for record in log:
        doubles.without([record])
    assert len(doubles._offsets) <= 1000
    for committed in (0, 1, 17, 2500, 4999):
        again = Doubles.noted(committed, doubles.note(committed))
        assert again.without(log[committed:]) == log[committed:]


def test_a_note_fits_what_brokers_take() -> None:
    seen = {f"source{number}": (16383, 1 << 60, 1 << 45, 3) for number in range(1000)}
    note = Doubles(7, seen).note(7)
    assert len(note) <= 4096
    assert set(msgspec.json.decode(note)["seen"]) < seen.keys()
