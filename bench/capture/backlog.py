"""The relay's queue from outside: ticks, and where the relay stands between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg.rows import TupleRow

from pipeline.capture.queue import CONSUMER, QUEUE

PATIENCE = 900.0  # seconds
_GLANCE = 0.02
_FINISHED = """
SELECT s.sub_last_tick FROM pgq.subscription s
  JOIN pgq.queue q ON q.queue_id = s.sub_queue JOIN pgq.consumer c ON c.co_id = s.sub_consumer
WHERE q.queue_name = %s AND c.co_name = %s
"""


class Backlog:
    """One source's queue, over a session of role pipeline."""

    def __init__(self, session: psycopg.Connection[TupleRow]) -> None:
        self._session = session

    def tick(self) -> int:
        """End a batch here; the tick's number."""
        return self._number("SELECT pgq.ticker(%s)", (QUEUE,))

    def rewind(self, tick: int) -> None:
        """Everything after this tick is to be relayed again. No relay may run."""
        self._session.execute("SELECT pgq.register_consumer_at(%s, %s, %s)", (QUEUE, CONSUMER, tick))

    def finished(self) -> int:
        """The last tick up to which the relay has published everything."""
        return self._number(_FINISHED, (QUEUE, CONSUMER))

    def await_finished(self, tick: int, glance: Callable[[], None] = lambda: None) -> float:
        """Wait until everything up to this tick is published; when that was seen, in monotonic seconds."""
        deadline = time.monotonic() + PATIENCE
        while self.finished() < tick:
            if time.monotonic() > deadline:
                raise TimeoutError(f"tick {tick} is not published after {PATIENCE:.0f} s")
            glance()
            time.sleep(_GLANCE)
        return time.monotonic()

    def _number(self, query: str, parameters: tuple[str, ...]) -> int:
        row = self._session.execute(query.encode(), parameters).fetchone()
        if row is None or row[0] is None:
            raise RuntimeError("the source has no queue: is capture installed?")
        return int(row[0])


@contextmanager
def backlog(url: str) -> Iterator[Backlog]:
    """The queue of the source at `url`."""
    with psycopg.connect(url, autocommit=True) as session:
        yield Backlog(session)
