"""Notices a Kafka client that no longer reads: the cure for bugs of its kind that nobody has met yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

STALLED_AFTER = 30.0
_LOOK_EVERY = 5.0


class StallWatch:
    """Notices partitions that are behind and not paused, and yet do not move."""

    def __init__(self, after: float, clock: Callable[[], float]) -> None:
        self._after = after
        self._clock = clock
        self._looked_at = clock()
        self._since: dict[int, tuple[int, float]] = {}

    def due(self) -> bool:
        """True when it is time to look again."""
        return self._clock() >= self._looked_at + min(_LOOK_EVERY, self._after / 2)

    def stalled(self, behind: Mapping[int, int]) -> bool:
        """`behind`: the position of each partition that should move. True when one stood there for too long."""
        now = self._looked_at = self._clock()
        before = self._since
        self._since = {
            partition: before[partition] if before.get(partition, (None,))[0] == position else (position, now)
            for partition, position in behind.items()
        }
        return any(now - since >= self._after for _, since in self._since.values())
