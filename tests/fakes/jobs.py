"""Ordinary Celery tasks for merchants' lanes, which note what they do in Redis.

``JOBS_URL`` and ``JOBS_PREFIX`` say where. Under the prefix: ``log`` ("begin|end|give-up merchant number pid"), and the
switches ``held`` ("merchant number": wait while it is there), ``deadly`` (kill the process, once), ``failing`` (raise),
``again`` (ask to come again, once).
"""

from __future__ import annotations

import os
import signal
import time
from functools import cache
from typing import Any

import redis
from celery import shared_task
from celery.exceptions import Reject


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["JOBS_URL"])


def _key(name: str) -> str:
    return f"{os.environ['JOBS_PREFIX']}{name}"


def _note(what: str, merchant: str, number: int) -> None:
    _client().rpush(_key("log"), f"{what} {merchant} {number}")


def _work(merchant: str, number: int) -> None:
    me = f"{merchant} {number}"
    _note("begin", merchant, number)
    if _client().srem(_key("deadly"), me):
        os.kill(os.getpid(), signal.SIGKILL)
    if _client().srem(_key("again"), me):
        raise Reject("not yet", requeue=True)
    if _client().sismember(_key("failing"), me):
        raise ValueError(me)
    while _client().sismember(_key("held"), me):
        time.sleep(0.02)
    _note("end", merchant, number)


@shared_task(name="job")  # type: ignore[untyped-decorator]  # Celery has no types
def job(merchant: str, number: int) -> None:
    """One piece of a merchant's work."""
    _work(merchant, number)


@shared_task(name="early", acks_late=False)  # type: ignore[untyped-decorator]  # Celery has no types
def early(merchant: str, number: int) -> None:
    """The same, acknowledged before it runs, anywhere but in a lane."""
    _work(merchant, number)


@shared_task(name="retrying", bind=True, max_retries=3)  # type: ignore[untyped-decorator]  # Celery has no types
def retrying(self: Any, merchant: str, number: int) -> None:
    """A task that knows only Celery's own way to come again, and takes it twice."""
    if _client().incr(_key(f"tries:{merchant}:{number}")) < 3:
        _note("retry", merchant, number)
        raise self.retry(countdown=0)
    _work(merchant, number)


@shared_task(name="limited", rate_limit="600/m")  # type: ignore[untyped-decorator]  # Celery has no types
def limited(merchant: str, number: int) -> None:
    """Ten a second in each worker."""
    _work(merchant, number)


@shared_task(name="timed", time_limit=1)  # type: ignore[untyped-decorator]  # Celery has no types
def timed(merchant: str, number: int) -> None:
    """The same, for a second at most."""
    _work(merchant, number)


@shared_task(name="part", ignore_result=False)  # type: ignore[untyped-decorator]  # Celery has no types
def part(merchant: str, number: int) -> int:
    """The same, with a result."""
    _work(merchant, number)
    return number


@shared_task(name="sum", ignore_result=False)  # type: ignore[untyped-decorator]  # Celery has no types
def total(parts: list[int], merchant: str) -> int:
    """What a chord ends with."""
    _work(merchant, sum(parts))
    return sum(parts)
