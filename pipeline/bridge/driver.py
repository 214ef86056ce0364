"""Drives a Kafka client's event loop: whoever asks the client for something does, and a thread only while nobody asks.

The client's own way is a thread for its loop, and a call waits until that thread had its turns of the CPU and of the
interpreter: beside other work that was a third of a bridge's CPU. Only heartbeats need a thread, while its owner is busy elsewhere.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

_AWAY, _STEP = 0.25, 0.1  # seconds; heartbeats are due every 1.5


class Driver:
    """Takes a client's running `net` over from its thread. To be closed before the client is."""

    def __init__(self, net: Any) -> None:
        net.stop()
        self._net = net
        self._step: Callable[[float | None], None] = net._poll_once
        # The client refuses to be asked from inside its loop; with a plain lock that would wait for ever.
        self._turn = threading.RLock()
        self._asked_at = time.monotonic()
        self._has_stood_in = False
        self._failure: BaseException | None = None
        self._closed = threading.Event()
        net._poll_once = self._asked
        self._thread = threading.Thread(target=self._stand_in, name="kafka-stand-in", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The thread ends; calls drive the loop still."""
        self._closed.set()
        self._net.wakeup()
        self._thread.join()
        self._failure = None

    def _asked(self, timeout: float | None = None) -> None:
        """One step of the loop, for a call that waits for something. The thread may just have done that: then nothing comes."""
        self._asked_at = math.inf  # nobody stands in while somebody waits
        if not self._turn.acquire(blocking=False):
            self._net.wakeup()
            self._turn.acquire()
        try:
            if self._failure is not None:
                raise self._failure
            has_stood_in, self._has_stood_in = self._has_stood_in, False
            self._step(0 if has_stood_in else timeout)
        finally:
            self._asked_at = time.monotonic()
            self._turn.release()

    def _is_away(self) -> bool:
        return not self._closed.is_set() and time.monotonic() - self._asked_at >= _AWAY

    def _stand_in(self) -> None:
        while not self._closed.wait(_AWAY):
            while self._is_away():
                with self._turn:
                    if not self._is_away():
                        break
                    self._has_stood_in = True
                    try:
                        self._step(_STEP)
                    except BaseException as error:  # noqa: BLE001  # whoever asks is told
                        self._failure = error
                        return
