"""How fast a snapshot goes: rows per second of late, and how long what is left will take at that."""

from __future__ import annotations

from collections import deque

_WINDOW = 30.0


class Pace:
    """Counts rows over the last half minute; times are seconds that never go back."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def count(self, at: float, rows: int) -> None:
        """So many rows are published in all by now."""
        if self._marks and rows < self._marks[-1][1]:  # it began again
            self._marks.clear()
        self._marks.append((at, rows))
        while at - self._marks[0][0] > _WINDOW and len(self._marks) > 2:
            self._marks.popleft()

    @property
    def per_second(self) -> float:
        """Rows per second; 0 before there is anything to go by."""
        if len(self._marks) < 2:
            return 0.0
        (began, before), (now, rows) = self._marks[0], self._marks[-1]
        return (rows - before) / (now - began) if now > began else 0.0

    def seconds_for(self, left: int) -> float | None:
        """How long `left` more rows take; None when that cannot be told."""
        if left <= 0:
            return 0.0
        return left / self.per_second if self.per_second > 0 else None
