"""What a lane keeps of its events until a sink has accepted them."""

import tracemalloc

from pipeline.bridge.pending import Lane

COUNT, FIRST = 100_000, 10_000_000


def test_what_waits_costs_eight_bytes_a_record() -> None:
    tracemalloc.start()
    try:
        lane = Lane("m1")
        lane.receive(list(range(FIRST, FIRST + COUNT)), [b""] * COUNT, 0.0)
        lane.appended(FIRST + COUNT - 1, 0.0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Mutant: the list of offsets as it was read, which takes 40 bytes for each.
    assert held < 9 * COUNT
    lane.accept(FIRST + COUNT - 2)
    assert lane.head == FIRST + COUNT - 1
