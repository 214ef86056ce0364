"""Celery's events, heard as Flower hears them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from celery import Celery


class Listening:
    """Celery's events, while in the block."""

    def __init__(self, app: Celery, hear: Callable[[dict[str, Any]], None]) -> None:
        self._app = app
        self._hear = hear
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self._hear})
            with receiver.consumer_context() as (own, *_):
                self._ready.set()
                while not self._stop.is_set():
                    _drain(own)


def _drain(connection: Any) -> None:
    try:
        connection.drain_events(timeout=0.2)
    except TimeoutError:
        return
