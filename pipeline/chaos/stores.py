"""The faults that strike Redis and Kafka. Those of a whole server are there only when somebody said how, or whose it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from random import Random
from typing import Any, cast

from redis import RedisError

from pipeline.chaos.faults import Fault, Field, NotNow

_FULL = 6.0  # seconds


@dataclass(frozen=True, slots=True)
class Servers:
    """What may be done to servers. `own_redis`: nobody else has anything in that Redis."""

    own_redis: bool = False
    restart_redis: Callable[[], None] | None = None
    restart_kafka: Callable[[], None] | None = None


def _while_redis_answers(strike: Callable[[Field, Random], str]) -> Callable[[Field, Random], str]:
    @wraps(strike)
    def guarded(field: Field, dice: Random) -> str:
        try:
            return strike(field, dice)
        except RedisError as error:
            raise NotNow from error

    return guarded


@_while_redis_answers
def flush(field: Field, _: Random) -> str:
    """Every key of this deployment is gone."""
    field.site.empty_lanes()
    return "the deployment's keys"


@_while_redis_answers
def flush_all(field: Field, _: Random) -> str:
    """FLUSHALL."""
    field.site.redis.flushall()
    return "everything"


@_while_redis_answers
def amnesia(field: Field, dice: Random) -> str:
    """A part of the keys, or of their fields, is gone: lanes with events and idle ones, claims, marks, anything."""
    client, share = field.site.redis, dice.choice((0.002, 0.01, 0.05, 0.3))
    keys = sorted(client.scan_iter(match=f"{field.site.consumer}:{field.site.consumer}*", count=1000))
    if not keys:
        raise NotNow
    gone = [key for key in keys if dice.random() < share] or [dice.choice(keys)]
    if dice.random() < 0.5:
        client.unlink(*gone)
        return f"{len(gone)} of {len(keys)} keys"
    for key in gone:
        _forget_a_part(client, key, dice)
    return f"parts of {len(gone)} of {len(keys)} keys"


def _forget_a_part(client: Any, key: bytes, dice: Random) -> None:
    kind = client.type(key)
    if kind == b"hash":
        fields = client.hkeys(key)
        client.hdel(key, *dice.sample(fields, dice.randint(1, len(fields))) if fields else [b"-"])
    elif kind == b"list":
        client.ltrim(key, 0, -1 - dice.randint(1, 5))  # the newest: what a replica that lags has not got
    elif kind in (b"zset", b"set"):
        members = client.zrange(key, 0, -1) if kind == b"zset" else sorted(client.smembers(key))
        some = dice.sample(members, dice.randint(1, len(members))) if members else []
        if some:
            (client.zrem if kind == b"zset" else client.srem)(key, *some)
    else:
        client.delete(key)


@_while_redis_answers
def fill_redis(field: Field, dice: Random) -> str:
    """Redis is full for a while: maxmemory is lowered below what is used."""
    client = field.site.redis
    if field.redis_is_full:
        raise NotNow
    before = cast(dict[str, str], client.config_get("maxmemory"))["maxmemory"]
    used = int(client.info("memory")["used_memory"])

    def mend() -> None:
        try:
            client.config_set("maxmemory", before)
            field.redis_is_full = False
        except RedisError:  # away: it comes back with what its configuration says, or is mended then
            field.timers.later(1, mend)

    client.config_set("maxmemory", int(used * dice.uniform(0.7, 0.99)))
    field.redis_is_full = True
    field.timers.later(_FULL, mend)
    return f"for {_FULL:.0f} s"


def _restart(restart: Callable[[], None], name: str) -> Callable[[Field, Random], str]:
    under_way: list[threading.Thread] = []

    def strike(_: Field, __: Random) -> str:
        if any(thread.is_alive() for thread in under_way):
            raise NotNow
        under_way[:] = [threading.Thread(target=restart, name=f"restart-{name}", daemon=True)]
        under_way[0].start()
        return name

    return strike


def of(servers: Servers) -> Mapping[str, Fault]:
    """The faults that these servers allow."""
    faults = {
        "flush": Fault(flush_all if servers.own_redis else flush, 1),
        "amnesia": Fault(amnesia, 3),
    }
    if servers.own_redis:
        faults["fill-redis"] = Fault(fill_redis, 1)
    if servers.restart_redis is not None:
        faults["restart-redis"] = Fault(_restart(servers.restart_redis, "redis"), 1)
    if servers.restart_kafka is not None:
        faults["restart-kafka"] = Fault(_restart(servers.restart_kafka, "kafka"), 0.5)
    return faults
