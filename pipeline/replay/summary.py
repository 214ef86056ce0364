"""What a replay did, in numbers and by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

import msgspec

from pipeline.replay.turns import Published, Told, Turns, What

_NAMED = 1000
Window = Iterable[Published | Told]


class Source(Protocol):
    """Records to replay, a window at a time."""

    @property
    def total(self) -> int:
        """How much there is to read, in offsets or bytes; 0 when nobody knows."""

    @property
    def read(self) -> int:
        """How much of it is done with."""

    @property
    def positions(self) -> Mapping[int, int]:
        """Where to go on from: everything before is done with."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """What was read and is not replayed."""

    def windows(self) -> Iterator[Window]:
        """The records, each merchant's in order."""


class _Kind(msgspec.Struct, gc=False):
    type: str


_kind = msgspec.json.Decoder(_Kind)


@dataclass(slots=True)
class Summary:
    """Counts by what became of records, and by merchant and type; rejected and failed records by name, the first 1,000."""

    counts: Counter[What] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    named: list[Told] = field(default_factory=list)
    stopped: str = ""

    @property
    def clean(self) -> bool:
        """True when no merchant was given up and the replay came to its end."""
        return not self.stopped and not self.counts["failed"]

    def tell(self, told: Told) -> None:
        """One record is done with."""
        self.counts[told.what] += 1
        if told.what in ("rejected", "failed") and len(self.named) < _NAMED:
            self.named.append(told)

    def saw(self, record: Published) -> None:
        """One record is there; it is only counted."""
        try:
            type_ = _kind.decode(record.value).type
        except (msgspec.ValidationError, msgspec.DecodeError):
            type_ = "?"
        self.kinds[record.merchant, type_] += 1

    def as_json(self, source: Source) -> dict[str, Any]:
        """For programs."""
        merchants: dict[str, dict[str, int]] = {}
        for (merchant, type_), count in sorted(self.kinds.items()):
            merchants.setdefault(merchant, {})[type_] = count
        return {
            **{what: self.counts[what] for what in get_args(What)},
            **source.left_out,
            "named": [
                [one.what, one.record.merchant, one.record.partition, one.record.offset, one.reason]
                for one in self.named
            ],
            "merchants": merchants,
            "positions": {str(partition): offset for partition, offset in source.positions.items()},
            "stopped": self.stopped,
        }


def run(turns: Turns, window: Window) -> Iterator[Told]:
    """Run a consumer's function over a window."""
    strange: list[Told] = []
    records: list[Published] = []
    for one in window:
        strange.append(one) if isinstance(one, Told) else records.append(one)
    yield from strange
    yield from turns.run(records)


def count(summary: Summary, keep: Callable[[Published], None], window: Window) -> Iterator[Told]:
    """Only look at a window: count its records, and keep them."""
    for one in window:
        if isinstance(one, Told):
            yield one
        else:
            summary.saw(one)
            keep(one)
