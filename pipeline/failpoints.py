"""Named points at which a process can be told to die or to stop, so that tests can do it exactly there.

``PIPELINE_FAILPOINTS="relay.published:3,search.bulked:1:STOP"`` sends this process SIGKILL when it passes the first
point for the third time, and SIGSTOP when it passes the second for the first time. Unset, a point costs one look-up.
"""

from __future__ import annotations

import os
import signal


def _armed() -> dict[str, tuple[int, signal.Signals]]:
    armed = {}
    for entry in filter(None, os.environ.get("PIPELINE_FAILPOINTS", "").split(",")):
        name, _, rest = entry.partition(":")
        count, _, sent = rest.partition(":")
        armed[name] = (int(count or 1), signal.Signals[f"SIG{sent or 'KILL'}"])
    return armed


_remaining = _armed()


def passes(point: str) -> None:
    """This process passes `point` now; it does not return when told to die here."""
    if point in _remaining:
        count, sent = _remaining.pop(point)
        if count > 1:
            _remaining[point] = (count - 1, sent)
        else:
            os.kill(os.getpid(), sent)
