"""Plain Celery for comparison: ``celery -A bench.lanes.plain worker``, stock kombu in a process of its own.

A merchant's events go to one of four queues, each event a task, or up to a hundred of a queue together. The tasks parse
their events as a lane's worker does, and do nothing with them.
"""

from __future__ import annotations

import os
import sys

from celery import Celery
from celery.signals import worker_ready
from kombu import Queue

from bench.lanes.shards import PREFIX, QUEUES
from pipeline.domain.event import decode

PREFETCH = 16  # per thread; of 4, 16 and 64 the cheapest, by little

app = Celery("bench_lanes_plain", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_queues=[Queue(name) for name in QUEUES],
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=PREFETCH,
    worker_send_task_events=False,
    task_send_sent_event=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"global_keyprefix": PREFIX, "priority_steps": [0]},
)


def _ready(**_: object) -> None:
    """Said aloud: at the level at which Celery says so it would also say two things of every task."""
    sys.stderr.write("plain worker is ready\n")
    sys.stderr.flush()


worker_ready.connect(_ready)


def _one(merchant: str, value: str) -> None:
    decode(value.encode(), merchant)


def _many(events: list[tuple[str, str]]) -> None:
    for merchant, value in events:
        decode(value.encode(), merchant)


one = app.task(_one, name="one")
many = app.task(_many, name="many")
