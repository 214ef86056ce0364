"""A bridge's books in memory: the same answers as the control database's, which the contract suite compares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pipeline.consumer import Rejection
from pipeline.control.copies import Copy
from pipeline.errors import FencedError, TransientError
from pipeline.ports import DetachedRow, Detachment, Request, SweepRecord, Takeover, Tenure


class Action(NamedTuple):
    """What the audit says of a request that was carried out."""

    request: Request
    first: int
    incarnation: int


@dataclass(eq=False)
class MemoryBooks:
    """See Books. Requests stand in ``open`` until they end: then in ``actions``, or with their reason in ``refusals``.

    ``counter`` is the newest incarnation; ``rows``, ``waits`` and ``passed`` go by the number of the partition.
    ``copies``, by the partition and the lane, go with the lane's row. ``rejected`` goes by (whether it is a row of a snapshot, the partition within its topic, the offset).
    """

    fences: dict[int, int] = field(default_factory=dict)
    rows: dict[int, dict[str, DetachedRow]] = field(default_factory=dict)
    counter: int = 0
    open: dict[int, Request] = field(default_factory=dict)
    refusals: dict[int, str] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    paused: bool = False
    rejected: dict[tuple[bool, int, int], Rejection] = field(default_factory=dict)
    waits: dict[int, dict[int, SweepRecord]] = field(default_factory=dict)
    passed: dict[int, dict[int, SweepRecord]] = field(default_factory=dict)
    copies: dict[int, dict[str, dict[int, Copy]]] = field(default_factory=dict)

    def require(self, partition: int, fence: int) -> None:
        """FencedError when another bridge has taken the partition over."""
        if self.fences.get(partition) != fence:
            raise FencedError(f"partition {partition} is no longer held under fence {fence}")

    def incarnation(self, row: DetachedRow | None) -> int:
        """The next incarnation, for a lane with this row so far."""
        self.counter += 1
        return self.counter

    def opened(self, row: DetachedRow) -> DetachedRow:
        """A row as it is after a take-over."""
        return replace(row, until=None)

    def take_over(self, partitions: Iterable[int]) -> Mapping[int, Takeover]:
        """See Books."""
        return {partition: self._take_over(partition) for partition in partitions}

    def _take_over(self, partition: int) -> Takeover:
        self.fences[partition] = self.fences.get(partition, 0) + 1
        rows = {lane: self.opened(row) for lane, row in self.rows.get(partition, {}).items()}
        self.rows[partition] = rows
        return Takeover(Tenure(self.fences[partition], self.counter), tuple(rows.values()))

    def detach(self, partition: int, fence: int, lanes: Sequence[Detachment]) -> Sequence[int]:
        """See Books."""
        self.require(partition, fence)
        if any(one.request is not None and one.request not in self.open for one in lanes):
            raise TransientError("a request was withdrawn while it was carried out")
        return [self._detach(self.rows.setdefault(partition, {}), one) for one in lanes]

    def _detach(self, rows: dict[str, DetachedRow], one: Detachment) -> int:
        incarnation = self.incarnation(rows.get(one.lane))
        rows[one.lane] = DetachedRow(one.lane, one.first, None, incarnation, one.state, one.reason)
        if one.request is not None:
            self.actions.append(Action(self.open.pop(one.request), one.first, incarnation))
        return incarnation

    def hand_over(self, partition: int, fence: int, until: Mapping[str, int]) -> None:
        """See Books."""
        self.require(partition, fence)
        rows = self.rows.get(partition, {})
        rows |= {lane: replace(rows[lane], until=at) for lane, at in until.items() if lane in rows}

    def advance(self, partition: int, fence: int, first: Mapping[str, int]) -> None:
        """See Books."""
        self.require(partition, fence)
        rows = self.rows.get(partition, {})
        rows |= {
            lane: replace(rows[lane], first=max(at, rows[lane].first))
            for lane, at in first.items()
            if lane in rows
        }

    def close(self, partition: int, fence: int, lanes: Sequence[str]) -> None:
        """See Books."""
        self.require(partition, fence)
        for lane in lanes:
            self.rows.get(partition, {}).pop(lane, None)
            self.copies.get(partition, {}).pop(lane, None)

    def ask(self, request: Request) -> None:
        """A person asks."""
        self.open[request.id] = request

    def withdraw(self, request: int) -> None:
        """They ask no more."""
        if self.open.pop(request, None):
            self.refusals[request] = "withdrawn"

    def requests(self, partitions: Iterable[int]) -> Sequence[Request]:
        """See Books."""
        held = set(partitions)
        return [self.open[id] for id in sorted(self.open) if self.open[id].partition in held]

    def answer(self, partition: int, fence: int, request: int, refusal: str) -> None:
        """See Books."""
        self.require(partition, fence)
        if self.open.pop(request, None):
            self.refusals[request] = refusal

    def consumer_paused(self) -> bool:
        """See Books."""
        return self.paused

    def set_aside(self, rejections: Sequence[Rejection]) -> None:
        """See Books."""
        for one in rejections:
            self.rejected.setdefault((one.snapshot, one.partition, one.offset), one)

    def wait_sweeps(self, partition: int, fence: int, records: Sequence[SweepRecord]) -> None:
        """See Books."""
        self.require(partition, fence)
        waits = self.waits.setdefault(partition, {})
        for record in records:
            if record.offset not in self.passed.get(partition, {}):
                waits.setdefault(record.offset, record)

    def waiting_sweeps(self, partition: int) -> Sequence[SweepRecord]:
        """See Books."""
        return [record for _, record in sorted(self.waits.get(partition, {}).items())]

    def pass_sweeps(self, records: Sequence[SweepRecord]) -> None:
        """See Books."""
        for record in records:
            self.passed.setdefault(record.partition, {}).setdefault(record.offset, record)
            self.waits.get(record.partition, {}).pop(record.offset, None)
