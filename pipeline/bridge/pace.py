"""When each part of the loop runs next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Seconds in which a broker that has something answers. A poll that waits less leaves its answer to the next one, which brings
# no more than was there when it was asked for.
GLANCE = 0.005
_SHORTEST, _LONGEST = 0.05, 2.0


@dataclass(slots=True)
class Step:
    """One part of the loop with its own pace and its own back-off, so that no outage stops the others. Times in seconds."""

    run: Callable[[], None]
    every: float = 0.0
    due: float = 0.0
    failures: int = 0

    def failed(self, now: float) -> None:
        """Wait longer after each failure in a row."""
        self.due = now + min(_SHORTEST * 2**self.failures, _LONGEST)
        self.failures = min(self.failures + 1, 10)

    def succeeded(self, now: float) -> None:
        """Back to its own pace."""
        self.due = now + self.every
        self.failures = 0
