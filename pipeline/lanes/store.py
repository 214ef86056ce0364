"""The lanes of one consumer in Redis; each call is one script, run whole or not at all, and can be repeated.

Keys, all beginning with ``<deployment>:<consumer>``: ``.m.<merchant>`` the list of a live lane, ``.s.<merchant>`` of one
with rows that snapshots read, ``:lane:<name>`` a lane's state (its name is the merchant, or ``s.<merchant>``), ``:ready``
and ``:retries`` the live lanes that wait and when they are due, ``:snapshot_ready`` and ``:snapshot_retries`` the others,
``:leases`` and ``:turn:<token>`` the claims, ``:news:<partition>`` what its bridge has not heard yet,
``:fences``, ``:epoch``, ``:token``, ``:breaker``, ``:accepted``, ``:failing``, ``:foreign`` what others pushed into lanes, and ``:bell``,
on which idle workers wait. Partitions are numbered through the consumer's topics.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from pipeline.domain.reason import storable
from pipeline.domain.routing import is_snapshot_lane, lane_queue, merchant_of_lane
from pipeline.lanes.claim import (
    FailingLane,
    Finished,
    Overview,
    Step,
    TurnLimits,
    decode_entry,
    encode_entry,
)
from pipeline.lanes.scripts import Argument, call, translated_errors
from pipeline.lanes.steps import step_arguments, step_of
from pipeline.ports import Append, Appended, News, Tenure

_CHUNK_BYTES = 1024 * 1024
# As Lua unpacks and packs them; a text follows, of the length that is the last number.
_LANE = struct.Struct("<iqqIH")
_ANSWER = struct.Struct("<qqqB")
_NEWS = struct.Struct("<qqH")
_LENGTH = struct.Struct("<H")
_UNKNOWN = -2
_DAMAGED, _PARKED = 1, 2
_SAMPLE = 10_000
_WAITING = ("ready", "retries", "snapshot_ready", "snapshot_retries")


def connect(url: str) -> redis.Redis:
    """A client for lanes. Repeats a call that got no answer, for a second or so: every script may run twice."""
    return redis.Redis.from_url(
        url,
        socket_timeout=5,
        socket_connect_timeout=5,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=1, base=0.1), 3),
    )


def namespace_of(deployment: str, consumer: str) -> str:
    """Where the keys of a consumer's lanes begin."""
    return f"{deployment}:{consumer}"


class RedisLaneStore:
    """All sides of a consumer's lanes: the bridge's (``pipeline.ports.LaneStore``), or senders', and the workers'."""

    def __init__(self, client: redis.Redis, namespace: str, limits: TurnLimits | None = None) -> None:
        self.namespace = namespace
        self.limits = limits or TurnLimits()
        self._client = client

    @property
    def bell(self) -> str:
        """The list on which idle workers wait: one element when a lane became ready."""
        return f"{self.namespace}:bell"

    # The bridge's side

    def epoch(self) -> str:
        """The store's identity; drawn when there is none."""
        key = f"{self.namespace}:epoch"
        with translated_errors():
            self._client.set(key, uuid.uuid4().hex, nx=True)
            return cast(bytes, self._client.get(key)).decode()

    def add(self, epoch: str, tenures: Mapping[int, Tenure], appends: Sequence[Append]) -> Sequence[Appended]:
        """Append events to their lanes, about a megabyte per call, so that nobody waits long for Redis.

        A lane is never split between calls.
        """
        limits = self.limits
        front: list[Argument] = [epoch, limits.linger, limits.events, len(tenures)]
        front += [number for partition, tenure in tenures.items() for number in (partition, *tenure)]
        answers: list[Appended] = []
        for chunk in _chunks(appends):
            lanes = b"".join(map(_lane, chunk))
            entries = [
                entry for append in chunk for entry in map(encode_entry, append.offsets, append.values)
            ]
            packed, *reasons = self._call("add", *front, lanes, *entries)
            why = map(_reason, reasons)
            for append, (enqueued, acknowledged, incarnation, state) in zip(
                chunk, _ANSWER.iter_unpack(packed), strict=True
            ):
                parked = next(why) if state & _PARKED else None
                answers.append(
                    Appended(
                        append.lane,
                        append.partition,
                        enqueued,
                        acknowledged,
                        incarnation,
                        state & _DAMAGED > 0,
                        parked,
                    )
                )
        return answers

    def acknowledged(self, epoch: str, partition: int, limit: int = 1000) -> Sequence[News]:
        """News of lanes, oldest first; taking them marks them read."""
        packed, at = self._call("acknowledged", epoch, partition, limit), 0
        news: list[News] = []
        while at < len(packed):
            incarnation, offset, length = _NEWS.unpack_from(packed, at)
            parked, at = _text(packed, at + _NEWS.size, length)
            (length,) = _LENGTH.unpack_from(packed, at)
            lane, at = _text(packed, at + _LENGTH.size, length)
            news.append(News(lane, incarnation, offset, parked or None))
        return news

    def reset(
        self, epoch: str, fence: int, partition: int, lane: str, incarnation: int, base: int
    ) -> Appended:
        """Make a lane this incarnation, unless it is: empty, unclaimed, everything up to `base` acknowledged."""
        reply = self._call("reset", epoch, partition, fence, lane, incarnation, base)
        return _appended(lane, partition, reply)

    # The side of those who send tasks

    def send(self, lane: str, message_id: str, message: bytes) -> int:
        """Put a Celery message at the end of a lane of tasks; repeated at once with the same id it does nothing."""
        return int(self._call("send", lane, message_id, message))

    # The workers' side

    def step(
        self,
        finished: Sequence[Finished] = (),
        *,
        claim: bool = True,
        floor: int = 0,
        jitter: float = 1.0,
    ) -> Step:
        """Hand in outcomes, end leases that ran out, and claim the next turn, its token above `floor`.

        `jitter` in (0, 1] scales the pause after a sink that accepts nothing.
        """
        arguments = step_arguments(self.limits, finished, claim=claim, floor=floor, jitter=jitter)
        return step_of(self._call("step", *arguments))

    def renew(self, tokens: Iterable[int]) -> frozenset[int]:
        """Hold these turns for another lease; returns those that had not ended."""
        return frozenset(int(token) for token in self._call("renew", self.limits.lease, *tokens))

    def release(self, token: int) -> None:
        """Give back a turn that was not begun: ready at once, nothing counted."""
        self._call("release", token)

    # What people ask

    def clear(self) -> None:
        """Take everything away, as if Redis had been emptied: whoever knows the epoch finds another."""
        with translated_errors():
            self._client.unlink(f"{self.namespace}:epoch")
            for pattern in (f"{self.namespace}:*", f"{self.namespace}.*"):
                keys = self._client.scan_iter(match=pattern, count=1000)
                while some := list(islice(keys, 1000)):
                    self._client.unlink(*some)

    def overview(self, most: int = 20) -> Overview:
        """How the lanes stand; read in several calls, so numbers may differ by what happened in between."""
        with translated_errors():
            pipe = self._client.pipeline(transaction=False)
            for room in _WAITING:
                pipe.zcard(f"{self.namespace}:{room}")
            pipe.zrange(f"{self.namespace}:leases", 0, -1)
            pipe.hget(f"{self.namespace}:breaker", "failures")
            pipe.smembers(f"{self.namespace}:failing")
            *waiting, tokens, breaker, failing = pipe.execute()
            return Overview(
                ready=sum(waiting),
                snapshots=sum(waiting[2:]),
                claimed=sum(len(names) for names in self._turns(tokens)),
                failing=self._failing(sorted(failing)[:most]),
                failing_count=len(failing),
                longest=self._longest(tokens, most),
                sink_failures=int(breaker or 0),
            )

    def lengths(self, lanes: Iterable[str]) -> dict[str, int]:
        """Events in each of these lanes."""
        names = list(lanes)
        with translated_errors():
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.llen(lane_queue(self.namespace, name))
            return dict(zip(names, pipe.execute(), strict=True))

    def _turns(self, tokens: Iterable[bytes]) -> list[list[bytes]]:
        pipe = self._client.pipeline(transaction=False)
        for token in tokens:
            pipe.lrange(f"{self.namespace}:turn:{token.decode()}", 0, -1)
        return cast(list[list[bytes]], pipe.execute())

    def _failing(self, found: Sequence[bytes]) -> tuple[FailingLane, ...]:
        names = [name.decode() for name in found]
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hmget(f"{self.namespace}:lane:{name}", "partition", "failures", "reason", "parked")
            pipe.lindex(lane_queue(self.namespace, name), 0)
        replies = pipe.execute()
        lanes = zip(names, replies[::2], replies[1::2], strict=True)
        return tuple(_failing(name, state, head) for name, state, head in lanes)

    def _longest(self, tokens: Sequence[bytes], most: int) -> tuple[tuple[str, int], ...]:
        pipe = self._client.pipeline(transaction=False)
        for room in _WAITING:
            pipe.zrange(f"{self.namespace}:{room}", 0, _SAMPLE)
        found = {name for group in (*pipe.execute(), *self._turns(tokens)) for name in group}
        lengths = self.lengths(name.decode() for name in found)
        ranked = sorted(lengths.items(), key=lambda item: (-item[1], item[0]))
        return tuple((name, length) for name, length in ranked[:most] if length)

    def _call(self, script: str, *arguments: Argument) -> Any:
        return call(self._client, script, self.namespace, *arguments)


def _lane(append: Append) -> bytes:
    name = append.lane.encode()
    previous = _UNKNOWN if append.previous is None else append.previous
    incarnation = _UNKNOWN if append.incarnation is None else append.incarnation
    return _LANE.pack(append.partition, incarnation, previous, len(append.offsets), len(name)) + name


def _chunks(appends: Sequence[Append]) -> Iterator[list[Append]]:
    chunk: list[Append] = []
    size = 0
    for append in appends:
        more = sum(map(len, append.values))
        if chunk and size + more > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(append)
        size += more
    yield chunk


def _appended(lane: str, partition: int, reply: Sequence[Any]) -> Appended:
    enqueued, acknowledged, incarnation, damaged, parked = reply
    return Appended(lane, partition, enqueued, acknowledged, incarnation, bool(damaged), _reason(parked))


def _text(packed: bytes, start: int, length: int) -> tuple[str, int]:
    end = start + length
    return storable(packed[start:end].decode(errors="replace")), end


def _reason(raw: bytes | None) -> str | None:
    return None if raw is None else storable(raw.decode(errors="replace"))


def _failing(name: str, state: Sequence[bytes | None], head: bytes | None) -> FailingLane:
    partition, failures, reason, parked = state
    oldest = decode_entry(head).offset if head else None
    return FailingLane(
        merchant_of_lane(name),
        int(partition or -1),
        int(failures or 0),
        _reason(reason) or "",
        oldest,
        is_snapshot_lane(name),
        parked is not None,
    )
