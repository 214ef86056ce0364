"""The partitions that a bridge holds, and its calls to the lane store for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from pipeline.bridge.offsets import Partition
from pipeline.errors import PipelineError
from pipeline.failpoints import passes
from pipeline.ports import Append, LaneStore

_SHORT = 10  # records of a lane: what a round brings of a flood is long
_NEWS = 1000

_log = structlog.get_logger()


class Holdings:
    """What is held is known since its take-over. Whatever becomes uncertain is forgotten and taken over again."""

    def __init__(self, store: LaneStore, clock: Callable[[], float]) -> None:
        self.store = store
        self.clock = clock
        self.partitions: dict[int, Partition] = {}
        self.unready: set[int] = set()
        self.losses = 0
        self._epoch: str | None = None

    @property
    def epoch(self) -> str:
        """That of the lane store when the partitions were taken over; drawn when there are none."""
        if self._epoch is None:
            self._epoch = self.store.epoch()
        return self._epoch

    def reassign(self, revoked: frozenset[int], assigned: frozenset[int]) -> None:
        """What was given or taken away is forgotten: only a new take-over knows where it stands."""
        for number in revoked | assigned:
            self.partitions.pop(number, None)
        self.unready = (self.unready - revoked) | assigned

    def lose(self, numbers: Iterable[int], reason: PipelineError) -> None:
        """Forget these. Whether they are still ours, Kafka decides when they are taken over again."""
        lost = {number for number in numbers if self.partitions.pop(number, None) is not None}
        if lost:
            _log.warning("partitions are taken over again", partitions=sorted(lost), reason=str(reason))
            self.losses += 1
            self.unready |= lost

    def start_over(self, reason: PipelineError) -> None:
        """Forget everything, also which lane store it was."""
        self._epoch = None
        self.lose(list(self.partitions), reason)

    def add_short_first(self, appends: Sequence[Append]) -> None:
        """Append in a call or two: what is short does not wait until a long run is appended."""
        for is_long in (False, True):
            if some := [one for one in appends if (len(one.offsets) > _SHORT) is is_long]:
                self.add(some)

    def add(self, appends: Sequence[Append]) -> None:
        """Append to lanes and take to heart what they answer."""
        tenures = {append.partition: self.partitions[append.partition].tenure for append in appends}
        replies = self.store.add(self.epoch, tenures, appends)
        passes("bridge.appended")
        now = self.clock()
        for reply in replies:
            self.partitions[reply.partition].answered(reply, now)

    def hear(self, partition: Partition) -> None:
        """What sinks have accepted since."""
        more = bool(partition.pending_lanes or partition.detached)
        while more:
            news = self.store.acknowledged(self.epoch, partition.number, _NEWS)
            for one in news:
                partition.accept(one)
            more = len(news) == _NEWS
