"""Lanes in Redis as people look at them: nothing is written, and nobody waits for it.

Read in several calls, so that what belongs together may be a moment apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import redis

from pipeline.domain.routing import is_snapshot_lane, lane_queue
from pipeline.lanes.claim import Entry, decode_entry
from pipeline.lanes.scripts import translated_errors

_FIELDS = (
    "partition",
    "incarnation",
    "enqueued",
    "acknowledged",
    "failures",
    "not_before",
    "reason",
    "parked",
    "claim",
)
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class ClaimView:
    """Who holds the lane: the claim's token, for how long already, and for how long still unless it is renewed (seconds).

    ``remaining`` is None when the lease is gone: the claim is void.
    """

    token: int
    age: float
    remaining: float | None


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane. Offsets are those of its partition, which is numbered through; None for what Redis does not have.

    ``waits``: seconds before a turn may take it, 0 when one may; None when it waits for none: it is empty, claimed or
    parked. ``not_before``: seconds until it is tried again after a failure. ``parked``: why, until its bridge has moved
    it out of the way.
    """

    name: str
    length: int
    partition: int | None
    incarnation: int | None
    enqueued: int | None
    acknowledged: int | None
    failures: int
    reason: str
    parked: str | None
    not_before: float | None
    waits: float | None
    claim: ClaimView | None

    @property
    def known(self) -> bool:
        """False when Redis has nothing of it."""
        return self.partition is not None or self.length > 0


class LaneViews:
    """The lanes of one consumer."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    def describe(self, lane: str) -> LaneView:
        """How a lane stands."""
        (found,) = self.described([lane])
        return found

    def described(self, lanes: Iterable[str]) -> list[LaneView]:
        """How each of these lanes stands."""
        names, found = list(lanes), list[LaneView]()
        for start in range(0, len(names), _AT_ONCE):
            with translated_errors():
                found += self._described(names[start : start + _AT_ONCE])
        return found

    def head(self, lane: str) -> Entry | None:
        """The lane's first entry; None while its list is empty or begins with what is no entry."""
        with translated_errors():
            raw = self._client.lindex(lane_queue(self._namespace, lane), 0)
        if not isinstance(raw, bytes) or not raw.partition(b"\n")[0].isdigit():
            return None
        return decode_entry(raw)

    def failing(self) -> list[str]:
        """Names of the lanes whose last turn failed, those that are parked in Redis among them."""
        with translated_errors():
            found = self._client.smembers(f"{self._namespace}:failing")
        return sorted(cast(bytes, name).decode() for name in found)

    def names(self, prefix: str = "", most: int = 200_000) -> set[str]:
        """Names of lanes that begin so, as many as `most`; every lane that ever had an event since Redis was emptied."""
        front = f"{self._namespace}:lane:"
        escaped = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in front + prefix)
        with translated_errors():
            found = self._client.scan_iter(match=f"{escaped}*", count=1000)
            return {key.decode().removeprefix(front) for key in islice(found, most)}

    def _described(self, names: Sequence[str]) -> list[LaneView]:
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        for name in names:
            pipe.hmget(f"{self._namespace}:lane:{name}", *_FIELDS)
            pipe.llen(lane_queue(self._namespace, name))
            for room in _rooms(name):
                pipe.zscore(f"{self._namespace}:{room}", name)
        clock, *replies = pipe.execute()
        claims = [fields[-1] or b"" for fields in replies[::4]]
        now, leases = _seconds(clock), self._leases(claims)
        return [
            _view(name, now, *replies[4 * n : 4 * n + 4], lease=leases[n]) for n, name in enumerate(names)
        ]

    def _leases(self, tokens: Sequence[bytes]) -> list[float | None]:
        pipe = self._client.pipeline(transaction=False)
        for token in tokens:
            pipe.zscore(f"{self._namespace}:leases", token)
        return list(pipe.execute())


def _rooms(name: str) -> tuple[str, str]:
    """Where the lane waits for its turn: one of these."""
    return ("snapshot_ready", "snapshot_retries") if is_snapshot_lane(name) else ("ready", "retries")


def _seconds(clock: tuple[int, int]) -> float:
    return clock[0] + clock[1] / 1_000_000


def _view(
    name: str,
    now: float,
    fields: Sequence[bytes | None],
    length: int,
    ready: float | None,
    retry: float | None,
    *,
    lease: float | None,
) -> LaneView:
    partition, incarnation, enqueued, acknowledged, failures, pause, reason, parked, token = fields
    later = _number(pause)
    due = ready if retry is None else retry
    return LaneView(
        name,
        length,
        _number(partition),
        _number(incarnation),
        _number(enqueued),
        _number(acknowledged),
        _number(failures) or 0,
        (reason or b"").decode(errors="replace"),
        None if parked is None else parked.decode(errors="replace"),
        None if later is None or later / 1000 <= now else later / 1000 - now,
        None if due is None else max(0.0, due / 1000 - now),
        _claim(token, now, lease),
    )


def _claim(token: bytes | None, now: float, lease: float | None) -> ClaimView | None:
    number = _number(token)
    if number is None:
        return None
    # Tokens are microseconds since 1970 when the clock allows it, and never below.
    age = max(0.0, now - number / 1_000_000)
    return ClaimView(number, age, None if lease is None else max(0.0, lease / 1000 - now))


def _number(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None
