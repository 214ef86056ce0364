"""A consumer's function in a test: a list of events goes in, what became of each comes out. No service is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from pipeline.consumer import Event
from pipeline.domain.event import Op
from pipeline.domain.version import pack
from pipeline.lanes.claim import TurnLimits
from pipeline.lanes.turn import Backoff, Handler
from pipeline.replay.lines import published
from pipeline.replay.turns import Published, Told, Turns, What


class Became(NamedTuple):
    """What became of one event: ``done``, ``rejected``, ``failed``, ``skipped`` (after one that failed), ``unavailable``."""

    what: What
    reason: str = ""


def rehearse(
    handler: Handler,
    events: Iterable[Event | bytes],
    *,
    group: int = 1,
    turn_events: int = 1000,
    attempts: int = 1,
) -> list[Became]:
    """Run a handler on these events (or lines of a file of events) as a worker does; what became of each, in their order.

    `group` and `turn_events` are those of the consumer. A merchant's events that are retried come again up to
    `attempts` times in all, without waiting.
    """
    limits = TurnLimits(group=group, events=turn_events)
    turns = Turns(
        "rehearsal",
        handler,
        limits,
        partitions=1,
        attempts=attempts,
        backoff=Backoff(lambda: 0.0),
        pause=lambda _: None,
    )
    values = [event if isinstance(event, bytes) else msgspec.json.encode(event) for event in events]
    read = list(published(values, lambda _: 0))
    told = [one for one in read if isinstance(one, Told)]
    told += turns.run(one for one in read if isinstance(one, Published))
    told.sort(key=lambda one: one.record.offset)
    return [Became(one.what, one.reason) for one in told]


def change(number: int, merchant: str, type_: str, row: Mapping[str, Any], *, op: Op = "u") -> Event:
    """The `number`-th change of a source: `row` is what it left, or deleted (`op` "d"), its ``id`` the key if it has one."""
    image, null = msgspec.Raw(msgspec.json.encode(dict(row))), msgspec.Raw(b"null")
    return Event(
        e=1,
        op=op,
        src="rehearsal",
        table=f"public.{type_}",
        type=type_,
        key={"id": row["id"]} if "id" in row else {},
        merchant=merchant,
        ver=str(pack(1, number)),
        gen=1,
        ev=number,
        sub=0,
        txid=number,
        tick=1,
        ts_ms=0,
        pub_ms=0,
        schema="",
        before=image if op == "d" else null,
        after=null if op == "d" else image,
    )
