"""How to write a consumer: one function and a name.

    from pipeline.consumer import Turn

    def handle(turn: Turn) -> None:
        for lane in turn:                       # one merchant each, in order
            deliver(lane.merchant, lane.events)
            lane.done()

Register it in ``pipeline.toml`` as ``[consumers.NAME] handler = "package.module:handle"``. A lane leaves the turn
with an outcome: ``done()`` (all of it, or the first n events), ``retry(reason)``, ``reject(event, reason)`` for single
events that can never be accepted (they are set aside in the control database and the lane goes on), and
``park(reason)`` when nothing may pass the next event. A lane without an outcome is tried again among fewer and counted
as failing; only for a consumer with ``group = 1`` does returning mean done. ``SinkUnavailableError`` says that nobody's events are at fault: all of the turn is tried again, later.
Everything may come twice: handlers are idempotent, by the event's version or by the turn's token.

A sink that keeps rows may have a second function, ``sweep``, in the handler's module: it removes what a source has lost
without an event for each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from pipeline.domain.event import Event
from pipeline.domain.routing import encode_key, partition_of
from pipeline.domain.sweep import Why
from pipeline.errors import SinkUnavailableError

__all__ = [
    "Event",
    "Lane",
    "Outcome",
    "Rejection",
    "SinkUnavailableError",
    "SweepOrder",
    "Turn",
    "encode_key",
]


@dataclass(frozen=True, slots=True)
class Rejection:
    """One event that is set aside: where it stood, why, and its bytes as they came.

    ``snapshot``: in the topic of rows that snapshots read, not among the changes.
    """

    merchant: str
    partition: int
    offset: int
    reason: str
    payload: bytes
    event: Event | None = None
    snapshot: bool = False


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What becomes of one lane: the first `entries` of its list leave it, and the rest waits.

    ``retry``: `delay_ms`, and the lane itself has failed. ``undecided``: likewise, but another lane of the turn may be at
    fault. ``unavailable``: none is. ``park``: until a person releases it.
    """

    merchant: str
    entries: int
    kind: Literal["done", "retry", "undecided", "park", "unavailable"]
    delay_ms: int = 0
    reason: str = ""


@dataclass(slots=True)
class Lane:
    """One merchant's events of one turn, in order; ``offsets[i]`` and ``payloads[i]`` belong to ``events[i]``.

    ``snapshot``: rows that a snapshot read; they come when no changes wait, and in no order with them.
    """

    merchant: str
    partition: int
    offsets: Sequence[int]
    events: Sequence[Event]
    payloads: Sequence[bytes]
    failures: int = 0
    snapshot: bool = False
    finished: int | None = field(default=None, init=False)
    failure: tuple[str, float | None] | None = field(default=None, init=False)
    parking: str | None = field(default=None, init=False)
    rejections: list[Rejection] = field(default_factory=list, init=False)

    def done(self, count: int | None = None) -> None:
        """The sink has accepted the first `count` events durably (all of them by default)."""
        self.finished = len(self.events) if count is None else count

    def retry(self, reason: str, *, after: float | None = None) -> None:
        """The rest of the lane failed: try again in `after` seconds (default: back-off by failures)."""
        self.failure = (reason, after)

    def park(self, reason: str) -> None:
        """The event after those done can never be accepted and nothing may pass it: the lane waits for a person."""
        self.parking = reason

    def reject(self, index: int, reason: str) -> None:
        """Set ``events[index]`` aside for good: it counts as done once its reason is stored."""
        event = self.events[index]
        self.rejections.append(
            Rejection(
                self.merchant,
                self.partition,
                self.offsets[index],
                reason,
                self.payloads[index],
                event,
                self.snapshot,
            )
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One claim of one or more lanes. ``token`` grows with every claim: a sink can refuse an older one."""

    consumer: str
    token: int
    lanes: Sequence[Lane]

    def __iter__(self) -> Iterator[Lane]:
        return iter(self.lanes)

    @property
    def size(self) -> int:
        """Events in all lanes together."""
        return sum(len(lane.events) for lane in self.lanes)


@dataclass(frozen=True, slots=True)
class SweepOrder:
    """What `source` wrote of `type` at a version below `version` is gone, save for the keys in ``spared``.

    Of one `merchant`, or of all when it is None. Everything that came before the order has been accepted, so what is
    older and comes later comes again, and its row is there already. ``offsets[p]`` is where the order stands in
    partition p of the topic of changes; ``spared`` holds (merchant, encoded key).
    """

    consumer: str
    id: str
    source: str
    table: str
    type: str
    merchant: str | None
    version: int
    why: Why
    offsets: Sequence[int]
    spared: frozenset[tuple[str, str]] = frozenset()

    def place(self, merchant: str) -> tuple[int, int]:
        """Partition and offset at which the order stands among the changes of `merchant`."""
        partition = partition_of(merchant, len(self.offsets))
        return partition, self.offsets[partition]

    def removes(self, merchant: str, key: str, version: int) -> bool:
        """True when a row of its source and type, with this encoded key, is to be removed."""
        return (
            version < self.version
            and self.merchant in (None, merchant)
            and (merchant, key) not in self.spared
        )
