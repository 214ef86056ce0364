"""The event at which a lane stands: what it is, without what it holds unless that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from pipeline.bridge.ranges import Range
from pipeline.cli.lanes_places import Ground, Standing, counting
from pipeline.domain.event import decode
from pipeline.domain.routing import encode_key
from pipeline.errors import MalformedEventError
from pipeline.replay.tally import records

_LOOKED_THROUGH = 500_000  # offsets: some seconds


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """One event: ``what`` in words when it is none that can be read. No row values, save in ``payload``.

    ``source``: ``redis`` or ``kafka``, where it was found. ``at``: the start of its writer's transaction.
    """

    source: str
    offset: int
    what: str
    type: str | None = None
    op: str | None = None
    key: str | None = None
    version: int | None = None
    at: datetime | None = None
    payload: str | None = None


class _Task(msgspec.Struct, gc=False):
    id: str = "?"
    task: str = "?"


class _Message(msgspec.Struct, gc=False):
    headers: _Task = msgspec.field(default_factory=_Task)


def event_at(ground: Ground, standing: Standing, *, payload: bool) -> ShownEvent | None:
    """The first event that is not accepted; None when there is none, or none near where the lane stands."""
    head = ground.views.head(standing.lane)
    if head is not None:
        shown = _of_task if ground.of_tasks else _of_event
        return shown("redis", standing.merchant, head.offset, head.value, payload=payload)
    if standing.row is None or standing.place is None:
        return None
    place, first = standing.place, ground.first_of(standing)
    part = Range(first, min(ground.bounds(place).end, first + _LOOKED_THROUGH))
    with counting(f"looking for the event at which {standing.lane} stands", part) as advance:
        found = records(ground.reader(place.topic), place.partition, part, standing.merchant, advance)
        record = next(found, None)
    if record is None:
        return None
    return _of_event("kafka", standing.merchant, record.offset, record.value, payload=payload)


def _of_event(source: str, merchant: str, offset: int, value: bytes, *, payload: bool) -> ShownEvent:
    text = value.decode(errors="replace") if payload else None
    try:
        event = decode(value, merchant)
    except MalformedEventError as error:
        return ShownEvent(source, offset, error.what, payload=text)
    at = datetime.fromtimestamp(event.ts_ms / 1000, UTC)
    what = "a domain event" if not event.is_row else "a change of a row"
    key = encode_key(event.key)
    return ShownEvent(source, offset, what, event.type, event.op, key, event.version, at, text)


def _of_task(source: str, merchant: str, offset: int, value: bytes, *, payload: bool) -> ShownEvent:
    text = value.decode(errors="replace") if payload else None
    try:
        task = msgspec.json.decode(value, type=_Message).headers
    except (msgspec.ValidationError, msgspec.DecodeError):
        return ShownEvent(source, offset, "not a Celery message", payload=text)
    return ShownEvent(source, offset, "a Celery task", task.task, None, task.id, payload=text)
