"""How far the consumers are behind a source's snapshots, and so whether a snapshot may go on.

Bridges tell in their heartbeats how many records of snapshots their consumer has yet to accept. Asking is left to a
thread: Redis may be slow or away, and changes may not wait for it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from pipeline.errors import TransientError
from pipeline.telemetry import ProcessState

_ASK_EVERY = 1.0
_STALE = 15.0  # seconds without an answer
METRIC = "snapshot_lag"


@dataclass(frozen=True, slots=True)
class _Answer:
    consumer: str
    records: int
    published: int
    at: float


class Backlog:
    """Bounds what is published of snapshots and not yet accepted by the slowest consumer, in records.

    `processes` asks for all heartbeats, `published` is how many snapshot rows this relay has published since it began:
    what it adds after an answer counts until the next one.
    """

    def __init__(
        self, processes: Callable[[], Iterable[ProcessState]], published: Callable[[], int], bound: int
    ) -> None:
        self._processes = processes
        self._published = published
        self._bound = bound
        self._answer = _Answer("", 0, published(), time.monotonic())
        self._wanted, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def hindrance(self) -> str:
        """Why a snapshot has to wait, in words; empty when it need not. Returns at once."""
        if self._thread is None:
            self._answer = _Answer("", 0, self._published(), time.monotonic())
            self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)
            self._thread.start()
        self._wanted.set()
        answer = self._answer
        added = self._published() - answer.published
        if answer.records + added <= self._bound:
            return ""
        if time.monotonic() - answer.at > _STALE:
            return "throttled: Redis does not tell how far the consumers are"
        if answer.consumer:
            return f"throttled: consumer {answer.consumer} has {answer.records:,} of its records to accept"
        return f"throttled: {added:,} records since the consumers were last asked"

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._wanted.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wanted.wait()
            self._wanted.clear()
            self._ask()
            self._ended.wait(_ASK_EVERY)

    def _ask(self) -> None:
        published = self._published()
        try:
            waiting = waiting_records(self._processes())
        except TransientError as error:
            structlog.get_logger().debug("backlog is not known", reason=str(error))
            return
        consumer, records = max(waiting.items(), key=lambda item: item[1], default=("", 0))
        self._answer = _Answer(consumer if records else "", records, published, time.monotonic())


def waiting_records(processes: Iterable[ProcessState]) -> dict[str, int]:
    """Records of snapshots that each consumer has yet to accept, summed over its bridges."""
    waiting: Counter[str] = Counter()
    for process in processes:
        kind, _, consumer = process.process.partition("-")
        if kind == "bridge" and METRIC in process.metrics:
            waiting[consumer] += int(process.metrics[METRIC])
    return dict(waiting)
