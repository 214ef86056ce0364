"""Events, lanes and turns as the lanes would hand them over, for tests of sinks."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline.consumer import Event, Lane, Turn
from pipeline.domain.event import Op
from pipeline.domain.version import pack

Row = Mapping[str, Any]


def version(number: int) -> int:
    """The version of ev_id `number` in generation 1."""
    return pack(1, number)


def row(key: int | str, **columns: Any) -> dict[str, Any]:
    """A payment's row."""
    return {"id": key, "merchant_id": "6", "amount": "1.50", "quantity": 1, **columns}


def event(
    number: int,
    image: Row | bytes,
    *,
    merchant: str = "6",
    type_: str = "payment",
    op: Op = "u",
    key: dict[str, int | str | bool] | None = None,
) -> Event:
    """The change with ev_id `number` that left `image` (bytes: the raw image), or that deleted it."""
    raw = msgspec.Raw(image if isinstance(image, bytes) else msgspec.json.encode(image))
    null = msgspec.Raw(b"null")
    return Event(
        e=1,
        op=op,
        src="gateway0",
        table=f"public.{type_}s",
        type=type_,
        key=key or {"id": image["id"] if not isinstance(image, bytes) else 1},
        merchant=merchant,
        ver=str(version(number)),
        gen=1,
        ev=number,
        sub=0,
        txid=1,
        tick=1,
        ts_ms=0,
        pub_ms=0,
        schema="",
        before=raw if op == "d" else null,
        after=null if op == "d" else raw,
    )


def lane(*events: Event, first_offset: int = 0) -> Lane:
    """One merchant's lane of these events."""
    offsets = range(first_offset, first_offset + len(events))
    payloads = [msgspec.json.encode(one) for one in events]
    return Lane(events[0].merchant, 3, offsets, events, payloads)


def turn(*lanes: Lane) -> Turn:
    """A claim of these lanes."""
    return Turn("search", 1, lanes)


def outcomes(lanes: Sequence[Lane]) -> list[tuple[int | None, tuple[str, float | None] | None, int]]:
    """What each lane was told: events done, failure, and how many were rejected."""
    return [(one.finished, one.failure, len(one.rejections)) for one in lanes]
