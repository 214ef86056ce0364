"""Backlogs yield to those who are up to date: they are worked on in slices, and rest after each three times as long as it took.

Without it the events of all merchants wait behind each piece of a backlog: in the bridge, and for its CPU everywhere else. Where
nobody is up to date nothing rests: a backlog alone, or one of all partitions, is worked off as fast as can be, to its end. One that
hardly becomes shorter rests less and less.
"""

from __future__ import annotations

from collections.abc import Mapping

_LIVE = 1.0  # seconds
_AFTER = 2.0  # seconds: the end of a backlog is nobody to yield to
_WORK = 0.005  # seconds that work on a slice should take, so that its round is no longer than others
_MOST = 5000
_LOOK_EVERY = 1.0  # seconds
_RESTS, _SHORT_REST = 3.0, 0.375  # by how long the work took; a shorter one is none


class Yielding:
    """Knows which partitions have a backlog and whether others are up to date; times in seconds of one clock.

    `behind`: records that a poll leaves in a partition with a backlog, a second of a flood rather than a hiccup's worth; `least`:
    records of the smallest slice. What rests and how much is taken is decided once for a round, when it begins.
    """

    def __init__(self, *, behind: int = 5000, least: int = 200) -> None:
        self._limit, self._least = behind, least
        # Who has more left is not up to date; a backlog must become shorter by so many in a second.
        self._few = max(1, behind // 5)
        self._behind: dict[int, int] = {}
        self._lagged_at: dict[int, float] = {}
        self._before: dict[int, int] = {}
        self._look_at = float("-inf")
        self._rests = _RESTS
        self._slice = least
        self._worked_since = self._live_until = self._rests_until = float("-inf")
        self._at_work = False
        self.rest = 0.0
        self.most: int | None = None

    @property
    def resting(self) -> frozenset[int]:
        """The partitions that rest in this round."""
        return frozenset(self._behind) if self.rest else frozenset()

    def begin(self, now: float) -> None:
        """A round begins. ``rest``: seconds for which backlogs still rest, 0 when they may be worked on; ``most``: how many records
        of a partition are taken, None for all that came.
        """
        self._at_work = False
        self.rest = max(0.0, self._rests_until - now)
        shared = max(self._least // 3, self._slice // max(1, len(self._behind)), 1)
        self.most = shared if now < self._live_until else None

    def polled(self, left: Mapping[int, int], now: float) -> None:
        """The partitions that brought records in this round, and how many more each has; work begins."""
        behind = {number: count for number, count in left.items() if count > self._limit}
        self._behind = {
            number: count for number, count in self._behind.items() if number not in left
        } | behind
        for number, count in left.items():
            if count > self._few:
                self._lagged_at[number] = now
            elif now >= self._lagged_at.get(number, float("-inf")) + _AFTER:
                self._live_until = now + _LIVE
        self._at_work, self._worked_since = bool(behind), now
        if now >= self._look_at:
            self._look(now)

    def _look(self, now: float) -> None:
        """Backlogs that hardly become shorter, by less than a fifth of the bound in a second, must rest less."""
        before, self._before, self._look_at = self._before, dict(self._behind), now + _LOOK_EVERY
        less = {number: before[number] - count for number, count in self._behind.items() if number in before}
        if any(by < self._few for by in less.values()):
            self._rests = self._rests / 2 if self._rests > _SHORT_REST else 0.0
        else:
            self._rests = min(_RESTS, max(_SHORT_REST, 2 * self._rests))

    def read_again(self, count: int) -> None:
        """Cursors brought so many records in this round; few are no work."""
        self._at_work = self._at_work or 2 * count >= self._least

    def reassigned(self, numbers: frozenset[int], now: float) -> None:
        """Partitions that were given or taken away. Until more is known, others count as up to date."""
        if numbers:
            self._behind = {number: count for number, count in self._behind.items() if number not in numbers}
            self._live_until = now + _LIVE

    def end(self, now: float) -> None:
        """The round ends: what there was to do for a backlog rests now, and comes in slices that take as long as they should."""
        if not self._at_work or now >= self._live_until:
            return
        seconds = now - self._worked_since
        wanted = int(self._slice * min(2.0, max(0.5, _WORK / max(seconds, 1e-6))))
        self._slice = min(_MOST, max(self._least, wanted))
        self._rests_until = now + self._rests * seconds
