"""What plain Celery uses for the same events of the same topic: a forwarding process, a worker, Redis and Kafka."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from redis import Redis

from bench.lanes import publishing
from bench.lanes.draining import PATIENCE, Drained, Meter
from bench.lanes.events import Envelopes, names, zipf
from bench.lanes.shards import FORWARDING, PREFIX, QUEUES
from bench.lanes.site import LaneSite
from devstack.process import wait_until
from pipeline.bridge.group_view import GroupView

Say = Callable[[str, int, int], None]
MERCHANTS = 1000
_WORKER = "celery -A bench.lanes.plain worker -P threads -c 2 --without-gossip --without-mingle"
_READY = "plain worker is ready"
_WARM_UP = 2000
_GLANCE = 0.25


def measure(site: LaneSite, events: int, size: int, say: Say) -> Drained:
    """Drain `events` of a thousand merchants by tasks of up to `size`; a group that no other run has used."""
    envelopes = Envelopes(f"plain{size}")
    what = f"plain Celery, {size} in a task"

    def put(count: int, seed: int) -> int:
        chosen = map(envelopes.of, zipf(names(MERCHANTS), count, seed))
        return publishing.publish(site.bootstrap, site.topic, chosen, lambda done: say(what, done, count))

    with closing(site.view_of(_group(site, size))) as view, _redis(site) as redis:
        view.commit(view.ends())
        site.start("worker", _WORKER, _READY)
        _drain(site, view, redis, put(_WARM_UP, 1), size, lambda done: say(what, done, _WARM_UP))
        found = _drain(site, view, redis, put(events, 2), size, lambda done: say(what, done, events))
        site.end("worker")
    return found


def _drain(
    site: LaneSite, view: GroupView, redis: Redis, events: int, size: int, say: Callable[[int], None]
) -> Drained:
    command = f"bench.lanes.forwarding {site.topic} {_group(site, size)} {size}"
    site.start("forwarding", command, FORWARDING)
    meter = Meter(site.pids())
    _await_done(view, redis, say, events)
    found = meter.read(events)
    site.end("forwarding")
    return found


def _group(site: LaneSite, size: int) -> str:
    return f"{site.NAME}-plain{size}"


def _redis(site: LaneSite) -> Redis:
    return Redis.from_url(site.redis_url)


def _await_done(view: GroupView, redis: Redis, say: Callable[[int], None], events: int) -> None:
    """Everything is forwarded, taken from the queues and acknowledged."""
    end = sum(view.ends().values())

    def over() -> bool:
        missing = end - sum(view.committed().values())
        waiting = sum(redis.llen(f"{PREFIX}{queue}") for queue in QUEUES) + redis.hlen(f"{PREFIX}unacked")
        say(max(0, events - missing - waiting))
        return missing == waiting == 0

    if not wait_until(over, PATIENCE, _GLANCE):
        raise TimeoutError(f"plain Celery: not done after {PATIENCE:.0f} s")
