"""A consumer for tests of real workers: its sink is a list in Redis, its faults are switches there.

``RECORD_URL`` and ``RECORD_PREFIX`` say where. Under the prefix: ``log`` ("token merchant offset ..." per lane and
turn), ``turns`` ("token merchant ..." per turn begun), and the switches ``down``, ``broken`` (likewise, but the handler
does not know it), ``delay`` (seconds), ``poison``, ``hopeless`` and ``killers`` (merchants).
"""

from __future__ import annotations

import os
import signal
import time
from functools import cache

import redis
from celery import shared_task

from pipeline.consumer import Lane, SinkUnavailableError, Turn


@cache
def sink() -> redis.Redis:
    return redis.Redis.from_url(os.environ["RECORD_URL"])


def key(name: str) -> str:
    return os.environ["RECORD_PREFIX"] + name


def record(turn: Turn) -> None:
    sink().rpush(key("turns"), f"{turn.token} {' '.join(lane.merchant for lane in turn)}")
    time.sleep(float(_get("delay") or 0))
    if _get("down"):
        raise SinkUnavailableError("the recording sink is down")
    if _get("broken"):
        raise ConnectionError
    for lane in turn:
        if sink().sismember(key("killers"), lane.merchant):
            os.kill(os.getpid(), signal.SIGKILL)
        if sink().sismember(key("poison"), lane.merchant):
            lane.retry("poison", after=0.05)
        elif sink().sismember(key("hopeless"), lane.merchant):
            lane.park("hopeless")
        else:
            _accept(turn.token, lane)


def _accept(token: int, lane: Lane) -> None:
    offsets = " ".join(map(str, lane.offsets))
    sink().rpush(key("log"), f"{token} {lane.merchant} {offsets}")
    lane.done()


def _get(name: str) -> bytes | None:
    value = sink().get(key(name))
    assert value is None or isinstance(value, bytes)
    return value


@shared_task(name="plain")  # type: ignore[untyped-decorator]  # Celery has no types
def plain(word: str) -> None:
    """An ordinary task, for a queue that is no lane."""
    sink().rpush(key("plain"), word)
    time.sleep(float(_get("plain delay") or 0))
