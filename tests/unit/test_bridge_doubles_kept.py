"""What a bridge remembers of a partition whose commit stands still."""

import tracemalloc

import msgspec

from pipeline.bridge.doubles import Doubles
from tests.fakes.kafka import MemoryRecord


def test_a_commit_that_stands_still_does_not_fill_the_memory() -> None:
    # Mutants: a thousand points, half a megabyte of each partition; none ever left out.
    doubles = Doubles(0, {})
    head = {"e": 1, "op": "c", "merchant": "m", "src": "shop", "gen": 1, "tick": 10**6, "sub": 0}
    tracemalloc.start()
    try:
        for offset in range(1500):
            value = msgspec.json.encode({**head, "ev": 10**6 + offset})
            assert doubles.without([MemoryRecord(offset, b"m", value)])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000
