"""A sink in memory that keeps the promises of every sink: by version, tombstones, one bad event alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.consumer import Event, Lane, SinkUnavailableError, Turn
from pipeline.domain.routing import encode_key


@dataclass(frozen=True, slots=True)
class Stored:
    """One row of a sink, or its tombstone (whose row is the key alone)."""

    version: int
    deleted: bool
    row: Mapping[str, Any]


@dataclass(slots=True)
class MemorySink:
    """Rows by merchant, type and encoded key. ``available`` switches it off; a quantity that is no integer is refused."""

    available: bool = True
    rows: dict[tuple[str, str, str], Stored] = field(default_factory=dict)

    def __call__(self, turn: Turn) -> None:
        """Take a turn."""
        if not self.available:
            raise SinkUnavailableError("switched off")
        for lane in turn:
            self._take(lane)

    def _take(self, lane: Lane) -> None:
        for position, event in enumerate(lane.events):
            if event.deleted or isinstance(event.row().get("quantity", 0), int):
                self._put(event)
            else:
                lane.reject(position, "quantity is no integer")
        lane.done()

    def _put(self, event: Event) -> None:
        place = event.merchant, event.type, encode_key(event.key)
        held = self.rows.get(place)
        if held is None or held.version < event.version:
            image = dict(event.key) if event.deleted else event.row()
            self.rows[place] = Stored(event.version, event.deleted, image)
