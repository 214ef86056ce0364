"""What a lane keeps of its events until a sink has accepted them."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bridge.pending import Lane

FIRST = 10_000_000


@pytest.mark.parametrize(("count", "most"), [(60_000, 3), (100_000, 5)])
def test_what_waits_costs_two_bytes_a_record_or_four(count: int, most: int) -> None:
    tracemalloc.start()
    try:
        lane = Lane("m1")
        lane.receive(list(range(FIRST, FIRST + count)), [b""] * count, 0.0)
        lane.appended(FIRST + count - 1, 0.0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Mutants: the list of offsets as it was read, which takes 40 bytes for each; four, or eight bytes for each distance.
    assert held < most * count
    lane.accept(FIRST + count - 2)
    assert lane.head == FIRST + count - 1


def test_a_lane_with_nothing_waiting_is_small() -> None:
    # Mutant: chunks in a deque, which begins with 600 bytes. A bridge has a hundred thousand lanes.
    tracemalloc.start()
    try:
        lanes = [Lane("m1") for _ in range(1000)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 300 * len(lanes)


def test_what_waits_of_many_rounds_costs_hardly_more() -> None:
    # Mutant: a chunk for each round, about 300 bytes.
    tracemalloc.start()
    try:
        lane = Lane("m1")
        for number in range(1000):
            lane.receive([2 * number, 2 * number + 1], [b"v", b"v"], number / 100)
            lane.appended(2 * number + 1, number / 100)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 24 * 2000
    for offset in range(2000):
        assert lane.head == offset
        lane.accept(offset)
    assert (lane.head, lane.size) == (None, 0)


def test_how_long_the_oldest_waits_is_known_to_half_a_minute() -> None:
    # Mutant: all that waits in one chunk: a lane that is never empty would soon be taken for slow.
    lane = Lane("m1")
    for number in range(300):
        lane.receive([number], [b"v"], float(number))
        lane.appended(number, float(number))
    lane.accept(289)
    assert 260.0 <= lane.chunks[0].read_at <= 290.0


STEPS = st.lists(
    st.sampled_from([1, 2, 3, 900, 901, 2**15, 2**16 - 1, 2**16, 2**31, 2**32 - 1, 2**32]),
    min_size=1,
    max_size=5,
)
ACCEPTED = st.sampled_from([0, 0, 0, 1, 2, 20])


@given(rounds=st.lists(st.tuples(STEPS, st.floats(0, 50), st.booleans(), ACCEPTED)))
def test_offsets_lie_as_far_apart_as_they_like(rounds: list[tuple[list[int], float, bool, int]]) -> None:
    # Mutants: `join` asks for no distance, or joins by its own base; distances of two bytes, or of four, whatever they are.
    lane, offset, now, waiting = Lane("m1"), FIRST, 0.0, []
    for steps, pause, is_answered, accepted in rounds:
        offsets = [offset := offset + step for step in steps]
        now += pause
        lane.receive(list(offsets), [b"v"] * len(offsets), now)
        if is_answered:
            lane.appended(offsets[-1], now)
        waiting += offsets
        if done := waiting[:accepted]:
            lane.accept(done[-1])
            waiting = waiting[accepted:]
        assert (lane.head, lane.size) == (waiting[0] if waiting else None, len(waiting))
    while waiting:
        lane.accept(waiting.pop(0))
        assert (lane.head, lane.size) == (waiting[0] if waiting else None, len(waiting))
