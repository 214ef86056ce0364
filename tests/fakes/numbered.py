"""Numbered pieces of work, done alike by a task on kombu's own transport and by the turns of a consumer.

``NUMBERED_URL`` and ``NUMBERED_PREFIX`` say in which Redis and where. Under the prefix: ``begun`` and ``done`` (numbers, in
order), ``held`` (numbers that wait until they are taken out) and ``deadly`` (numbers that kill their process, once).
"""

from __future__ import annotations

import os
import signal
import time
from functools import cache

import redis
from celery import Celery, signals

from pipeline.consumer import Turn

QUEUE = "numbers"


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["NUMBERED_URL"])


def _key(name: str) -> str:
    return f"{os.environ['NUMBERED_PREFIX']}{name}"


def work(number: int) -> None:
    """Begin, wait while held, die if told to, and be done."""
    _client().rpush(_key("begun"), number)
    if _client().srem(_key("deadly"), number):
        os.kill(os.getpid(), signal.SIGKILL)
    while _client().sismember(_key("held"), str(number)):
        time.sleep(0.02)
    _client().rpush(_key("done"), number)


def handle(turn: Turn) -> None:
    """A consumer's handler: the numbers are the events' ids."""
    for lane in turn:
        for event in lane.events:
            work(event.ev)
        lane.done()


def stock_app() -> Celery:
    """An app on kombu's own transport, set up as carefully as its settings allow."""
    app = Celery("stock", broker=os.environ["NUMBERED_URL"], set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=os.environ.get("NUMBERED_REJECT") == "1",
        task_ignore_result=True,
        task_default_queue=QUEUE,
        worker_prefetch_multiplier=int(os.environ.get("NUMBERED_PREFETCH", "1")),
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "global_keyprefix": os.environ["NUMBERED_PREFIX"],
            "priority_steps": [0],
        },
    )
    app.task(work, name="work")
    return app


if "NUMBERED_STOCK" in os.environ:
    app = stock_app()


def _ready(**_: object) -> None:
    if "NUMBERED_PREFIX" in os.environ:
        _client().rpush(_key("ready"), os.getpid())


signals.worker_ready.connect(_ready, weak=False)
