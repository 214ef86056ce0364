"""What the measured workers run: tasks that do nothing, and tasks that only say when they got what.

A line of the log is a ``Receipt``; it goes into the file RECEIPTS names, one write per turn, whatever thread runs it.
"""

from __future__ import annotations

import os
import struct
import time

from bench.lanes.events import PROBED
from pipeline.consumer import Turn

RECEIPTS = "BENCH_LANES_RECEIPTS"
POISON, SLOW = "poison", "slow"  # how the merchants begin that are so
PAUSE = 0.3  # seconds that a turn with a slow merchant's events takes longer
RECEIPT = struct.Struct("<iqd")
"""Partition, offset, and when the task came to it in monotonic seconds."""


class PoisonedError(Exception):
    """What a poisonous event raises, every time."""


def nothing(turn: Turn) -> None:
    """Accept everything."""
    for lane in turn:
        lane.done()


class _Log:
    """Opened by the first turn of a process, so that a pool's children have each their own."""

    def __init__(self) -> None:
        self._pid, self._file = 0, -1

    def write(self, lines: bytes) -> None:
        if self._pid != os.getpid():
            self._file = os.open(os.environ[RECEIPTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._pid = os.getpid()
        os.write(self._file, lines)


_log = _Log()


def watched(turn: Turn) -> None:
    """Accept everything lane by lane, note when each probed lane's time came, fail at poison, dawdle over the slow."""
    noted: list[bytes] = []
    try:
        for lane in turn:
            if lane.merchant.startswith(PROBED):
                now = time.monotonic()
                noted += [RECEIPT.pack(lane.partition, offset, now) for offset in lane.offsets]
            elif lane.merchant.startswith(SLOW):
                time.sleep(PAUSE)
            elif lane.merchant.startswith(POISON):
                raise PoisonedError
            lane.done()
    finally:
        if noted:
            _log.write(b"".join(noted))
