"""Named points at which a process can be told to die, so that tests can kill it exactly there.

``PIPELINE_FAILPOINTS="relay.published:3,bridge.appended:1"`` kills this process with SIGKILL when it passes the point
for the third, respectively first, time. Unset, a point is one dictionary look-up.
"""

from __future__ import annotations

import os
import signal


def _armed() -> dict[str, int]:
    text = os.environ.get("PIPELINE_FAILPOINTS", "")
    pairs = (entry.partition(":") for entry in text.split(",") if entry)
    return {name: int(count or 1) for name, _, count in pairs}


_remaining = _armed()


def passes(point: str) -> None:
    """This process passes `point` now; it does not return when told to die here."""
    if point in _remaining:
        _remaining[point] -= 1
        if _remaining[point] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
