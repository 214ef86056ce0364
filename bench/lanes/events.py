"""The events of a lanes bench: envelopes as a relay publishes them, of merchants by Zipf's law or of one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate

import msgspec

from bench.load import Changes
from pipeline.domain.routing import partition_of
from pipeline.domain.version import pack

PARTITIONS = 12
PROBED = "m"  # how the merchants begin whose events are watched
_TICK = 500  # events of one
_ROWS = 1000  # different ones: more than a batch's compression sees at once, or a fetch would be a hundred times larger
Record = tuple[int, bytes, bytes]
"""Partition, key and value."""


class Envelopes:
    """One source's envelopes, in order, so that whoever reads them takes none for a double."""

    def __init__(self, source: str) -> None:
        self._head = (
            f'{{"e":1,"op":"c","src":"{source}","table":"public.payments","type":"payment","key":{{"id":'
        )
        self._places: dict[str, tuple[int, bytes]] = {}
        self._rows = _rows()
        self._ev = 0

    def of(self, merchant: str) -> Record:
        """The next event, a row of this merchant: about 640 bytes, of which the row's image has about 390."""
        self._ev = ev = self._ev + 1
        place = self._places.get(merchant)
        if place is None:
            place = self._places[merchant] = (partition_of(merchant, PARTITIONS), merchant.encode())
        value = (
            f'{self._head}{ev}}},"merchant":"{merchant}","ver":"{pack(1, ev)}","gen":1,"ev":{ev},"sub":0,"txid":{ev},'
            f'"tick":{ev // _TICK},"ts_ms":1790000000000,"pub_ms":1790000000000,"schema":"0123456789abcdef",'
            f'"before":null,"after":{{"id":{ev},{self._rows[ev % _ROWS]}}}'
        )
        return *place, value.encode()


@cache
def _rows() -> list[str]:
    """Rows as `bench e2e` has them, without their ids and braces."""
    changes, rest = Changes(seed=7), ',"created_at":"2026-01-01T00:00:00.000000+00:00","updated_at":null}'
    rows = (changes.insert().values for _ in range(_ROWS))
    known = ({name: value for name, value in row.items() if name != "id"} for row in rows)
    return [msgspec.json.encode(row).decode()[1:-1] + rest for row in known]


def names(count: int) -> list[str]:
    """Merchants, the busiest first."""
    return [f"{PROBED}{number}" for number in range(count)]


def elsewhere(merchants: Sequence[str], partition: int) -> list[str]:
    """Those that lie in other partitions."""
    return [merchant for merchant in merchants if partition_of(merchant, PARTITIONS) != partition]


def beside(merchants: Sequence[str], partition: int) -> list[str]:
    """Those that lie in this partition."""
    return [merchant for merchant in merchants if partition_of(merchant, PARTITIONS) == partition]


def zipf(merchants: Sequence[str], count: int, seed: int) -> Iterator[str]:
    """So many merchants by Zipf's law, exponent 1: the first twice as often as the second."""
    dice = random.Random(seed)
    weights = list(accumulate(1 / rank for rank in range(1, len(merchants) + 1)))
    for start in range(0, count, 10_000):
        yield from dice.choices(merchants, cum_weights=weights, k=min(10_000, count - start))
