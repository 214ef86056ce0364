"""What relays and snapshots publish, and some records that nobody should: the topics of a world, and what must arrive."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import msgspec

from pipeline.domain.event import Op
from pipeline.domain.routing import is_snapshot_lane, lane_of, merchant_of_lane, partition_of
from pipeline.domain.sweep import Sweep, encode_sweep
from pipeline.domain.version import pack
from pipeline.ports import DetachedRow
from tests.fakes.kafka import MemoryKafka
from tests.fakes.promises import Broken, Story, covers
from tests.fakes.turns import event

PARTITIONS = 2
NUMBERS = range(2 * PARTITIONS)
MERCHANTS = ("6", "7", "12", "acme")
LANES = tuple(lane_of(merchant, snapshot=snapshot) for snapshot in (False, True) for merchant in MERCHANTS)

Kind = Literal["event", "malformed", "no value", "no key"]


@dataclass(slots=True)
class Relay:
    """One database's: the tick that it publishes, and what of it is in Kafka."""

    source: str
    tick: int = 1
    ev: int = 0
    published: list[tuple[str, bytes]] = field(default_factory=list)


class Stream:
    """Two topics of two partitions, numbered through: 0 and 1 hold changes, 2 and 3 rows that snapshots read.

    ``bad`` are the records that have to be set aside, each with its lane ("" for none), until they are in ``rejected``;
    ``sweeps`` are those to be passed, until they are in ``passed``.
    """

    def __init__(self, kafka: MemoryKafka) -> None:
        self.kafka = kafka
        self.stories = {lane: Story(lane) for lane in LANES}
        self.of_partition = {
            number: [story for name, story in self.stories.items() if number_of(name) == number]
            for number in NUMBERS
        }
        self.bad: dict[int, dict[int, str]] = {number: {} for number in NUMBERS}
        self.sweeps: dict[int, list[int]] = {number: [] for number in NUMBERS}
        self.rejected: set[tuple[int, int]] = set()
        self.passed: set[tuple[int, int]] = set()
        self._relays = (Relay("gateway0"), Relay("gateway1"))
        self._swept = 0

    def append(self, lane: str, kind: Kind = "event") -> None:
        """One more record of a lane; strange ones belong to nobody's or cannot be read."""
        number = number_of(lane)
        if kind != "event":
            self.bad[number][self.kafka.end(number)] = "" if kind == "no key" else lane
            self._put(
                lane, {"malformed": b"{", "no value": None, "no key": b"{}"}[kind], keyless=kind == "no key"
            )
        else:
            self.stories[lane].events.append(self._put(lane, self._next_value(lane)))

    def _next_value(self, lane: str) -> bytes:
        if is_snapshot_lane(lane):
            return _value(lane, "gateway0", 1, len(self.stories[lane].events) + 1)
        relay = self._relays[MERCHANTS.index(merchant_of_lane(lane)) % 2]
        relay.ev += 1
        value = _value(lane, relay.source, relay.tick, relay.ev)
        relay.published.append((lane, value))
        return value

    def _put(self, lane: str, value: bytes | None, *, keyless: bool = False) -> int:
        key = None if keyless else merchant_of_lane(lane).encode()
        return self.kafka.append(number_of(lane), key, value)

    def finish_tick(self, relay: int) -> None:
        """A relay begins with its next tick: everything before it is in Kafka."""
        one = self._relays[relay]
        one.tick, one.published = one.tick + 1, []

    def publish_again(self, relay: int, first: int) -> None:
        """A relay publishes its tick from the start, and dies after the `first` records; the next one does it whole."""
        published = self._relays[relay].published
        for lane, value in [*published[:first], *published]:
            self._put(lane, value)

    def append_sweep(self) -> None:
        """One more sweep, in every partition."""
        self._swept += 1
        sweep = Sweep(1, "sweep", f"sweep-{self._swept}", "shop", "public.t", "t", None, "1", "truncate")
        for number in NUMBERS:
            self.sweeps[number].append(self.kafka.append(number, None, encode_sweep(sweep)))

    # Promises

    def require_done(
        self, number: int, end: int, rows: Mapping[str, DetachedRow], waiting: Container[int]
    ) -> None:
        """Everything below `end` is accepted, set aside or passed, or written down as still to be done."""
        if (offset := next(self._undone(number, end, rows, waiting), None)) is not None:
            raise Broken(f"partition {number}: committed {end} passes {offset}")

    def _undone(
        self, number: int, end: int, rows: Mapping[str, DetachedRow], waiting: Container[int]
    ) -> Iterator[int]:
        for story in self.of_partition[number]:
            if (offset := story.missing(end, rows.get(story.name))) is not None:
                yield offset
        yield from (
            offset
            for offset, lane in self.bad[number].items()
            if offset < end and not covers(rows.get(lane), offset)
        )
        yield from (offset for offset in self.sweeps[number] if offset < end and offset not in waiting)

    def set_aside(self, number: int, offset: int) -> None:
        """That record is stored with its reason."""
        self.rejected.add((number, offset))
        self.bad[number].pop(offset, None)

    def skip(self, lane: str, first: int, end: int) -> None:
        """A person has let go of what nobody can read there, too."""
        bad = self.bad[number_of(lane)]
        for offset in [at for at, owner in bad.items() if owner == lane and first <= at < end]:
            del bad[offset]

    def pass_sweep(self, number: int, offset: int) -> None:
        """The sink is told that it has everything before that sweep, which must be true."""
        unseen = [at for story in self.of_partition[number] if (at := story.unseen(offset)) is not None]
        unseen += [at for at in self.bad[number] if at < offset]
        if unseen:
            raise Broken(f"partition {number}: a sweep at {offset} passes {min(unseen)}")
        self.passed.add((number, offset))
        if offset in self.sweeps[number]:
            self.sweeps[number].remove(offset)


def number_of(lane: str) -> int:
    """The partition of a lane, numbered through."""
    return _NUMBERS[lane]


_NUMBERS = {
    lane: partition_of(merchant_of_lane(lane), PARTITIONS) + (PARTITIONS if is_snapshot_lane(lane) else 0)
    for lane in LANES
}


@cache
def _value(lane: str, source: str, tick: int, ev: int) -> bytes:
    op: Op = "r" if is_snapshot_lane(lane) else "u"
    one = event(ev, {"id": ev}, merchant=merchant_of_lane(lane), op=op)
    return msgspec.json.encode(
        msgspec.structs.replace(one, src=source, tick=tick, ev=ev, ver=str(pack(1, ev)))
    )
