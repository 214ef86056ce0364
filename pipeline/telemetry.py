"""Logs and heartbeats: what every process tells about itself.

Logs are one line per event on stderr, JSON unless it is a terminal, and never hold row contents or secrets.
A heartbeat is one expiring Redis key per process, written every five seconds; ``pipeline status`` reads them.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import redis
import structlog

from pipeline.errors import TransientError

Metrics = Mapping[str, float | int | str]
_INTERVAL, _EXPIRY = 5.0, 15


def configure_logging(process: str) -> None:
    """Set up structured logging for this process; libraries log warnings only."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process as its last heartbeat showed it; ``at`` and ``started`` are seconds since 1970."""

    process: str
    host: str
    pid: int
    started: float
    at: float
    metrics: dict[str, float | int | str]


class Heartbeat:
    """Writes a process's metrics every five seconds from its own thread, until stopped; Redis may be away."""

    def __init__(
        self, client: redis.Redis, deployment: str, process: str, metrics: Callable[[], Metrics]
    ) -> None:
        self._client = client
        self._key = f"{deployment}:heartbeat:{process}:{socket.gethostname()}:{os.getpid()}"
        self._process = process
        self._metrics = metrics
        self._started = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> Heartbeat:
        """Begin beating."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End beating and take the key away."""
        self._stop.set()
        self._thread.join(timeout=2)
        self._ignoring_outages(lambda: self._client.delete(self._key))

    def _run(self) -> None:
        while True:
            self._ignoring_outages(lambda: self._client.set(self._key, self._state(), ex=_EXPIRY))
            if self._stop.wait(_INTERVAL):
                return

    def _state(self) -> bytes:
        state = ProcessState(
            self._process,
            socket.gethostname(),
            os.getpid(),
            self._started,
            time.time(),
            dict(self._metrics()),
        )
        return msgspec.json.encode(state)

    @staticmethod
    def _ignoring_outages(call: Callable[[], object]) -> None:
        try:
            call()
        except redis.RedisError as error:
            structlog.get_logger().debug("heartbeat not written", error=type(error).__name__)


def heartbeats(client: redis.Redis, deployment: str) -> list[ProcessState]:
    """All processes that beat within the last 15 seconds, by name; TransientError when Redis does not answer."""
    try:
        keys = list(client.scan_iter(match=f"{deployment}:heartbeat:*", count=1000))
        values = client.mget(keys) if keys else []
    except redis.RedisError as error:
        raise TransientError(
            f"Redis does not answer: {type(error).__name__}", hint="see REDIS_URL"
        ) from error
    states = [msgspec.json.decode(value, type=ProcessState) for value in values if value is not None]
    return sorted(states, key=lambda state: (state.process, state.host, state.pid))
