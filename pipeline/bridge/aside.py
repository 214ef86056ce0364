"""What of a partition belongs to no lane: records that are set aside, and sweeps that wait for everything before them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.consumer import Rejection
from pipeline.domain.sweep import decode_sweep
from pipeline.ports import SweepRecord


class Aside:
    """Of partition `number`, which is number `own` of its topic; ``strange`` is what has not been stored yet.

    ``sweeps`` hold the offsets back until they are passed, or it is stored that they wait for detached lanes alone:
    then they stand in ``waiting``.
    """

    def __init__(self, number: int, own: int, *, snapshot: bool) -> None:
        self.strange: list[Rejection] = []
        self.sweeps: list[SweepRecord] = []
        self.waiting: list[SweepRecord] = []
        self.reached: list[SweepRecord] = []
        self.to_wait: list[SweepRecord] = []
        self._number = number
        self._own = own
        self._snapshot = snapshot

    def take(self, offsets: Sequence[int], values: Sequence[bytes | None]) -> None:
        """Records without key: sweeps, or strange ones."""
        for offset, value in zip(offsets, values, strict=True):
            sweep = decode_sweep(value)
            if sweep is None:
                self.put([offset], [value], "a record without key")
            elif all(offset != one.offset for one in self.waiting):
                self.sweeps.append(SweepRecord(self._number, offset, sweep))

    def put(
        self, offsets: Sequence[int], values: Sequence[bytes | None], reason: str, merchant: str = ""
    ) -> None:
        """These are to be set aside."""
        self.strange += [
            Rejection(merchant, self._own, offset, reason, value or b"", snapshot=self._snapshot)
            for offset, value in zip(offsets, values, strict=True)
        ]

    def without_empty(
        self, merchant: str, offsets: list[int], values: list[bytes | None]
    ) -> tuple[list[int], list[bytes | None]]:
        """The records that have a value; the others are to be set aside."""
        pairs = list(zip(offsets, values, strict=True))
        empty = [offset for offset, value in pairs if value is None]
        self.put(empty, [None] * len(empty), "a record without value", merchant)
        kept = [(offset, value) for offset, value in pairs if value is not None]
        return [offset for offset, _ in kept], [value for _, value in kept]

    def strange_of(self, merchant: str) -> list[int]:
        """Offsets of that merchant's records that are still to be set aside."""
        return [one.offset for one in self.strange if one.merchant == merchant]

    def smallest_control(self) -> int | None:
        """The first sweep that holds the offsets back."""
        return min((record.offset for record in self.sweeps), default=None)

    def look_at_sweeps(self, live: int, slowest: int | None) -> None:
        """Sort sweeps: `live` is the first offset that the live lanes have not done, `slowest` that of the detached ones.

        One that waits may lie beyond what a bridge has read since it took over, with a lane before it that is live again.
        """
        bound = live if slowest is None else min(live, slowest)
        self.reached = [record for record in [*self.waiting, *self.sweeps] if record.offset < bound]
        self.to_wait = [record for record in self.sweeps if bound <= record.offset < live]

    def passed(self, records: Iterable[SweepRecord]) -> None:
        """That is recorded of these sweeps."""
        offsets = {record.offset for record in records if record.partition == self._number}
        self.sweeps = [record for record in self.sweeps if record.offset not in offsets]
        self.waiting = [record for record in self.waiting if record.offset not in offsets]

    def waits(self, records: Iterable[SweepRecord]) -> None:
        """It is stored that these wait for detached lanes."""
        taken = {record.offset for record in records if record.partition == self._number}
        self.waiting += [record for record in self.sweeps if record.offset in taken]
        self.sweeps = [record for record in self.sweeps if record.offset not in taken]
