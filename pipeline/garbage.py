"""What a process that runs for long tells Python's garbage collector."""

from __future__ import annotations

import gc


def settle() -> None:
    """The process has started: what it has made until now stays.

    The collector looks through everything whenever a quarter more has been made. Modules and classes are most of it: each look
    stopped a bridge for 90 to 110 ms, every eleven seconds at 300 events/s.
    """
    gc.collect()
    gc.freeze()
