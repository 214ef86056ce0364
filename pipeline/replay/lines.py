"""Files of events: one envelope per line, as a topic has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec

from pipeline.domain.event import ENVELOPE_VERSION
from pipeline.domain.routing import is_merchant
from pipeline.replay.turns import Published, Told

_WINDOW_BYTES = 4 * 1024 * 1024
_NAMELESS = f"not an event of envelope version {ENVELOPE_VERSION}: it names no merchant"


class _Whose(msgspec.Struct, gc=False):
    merchant: str


_whose = msgspec.json.Decoder(_Whose)


def published(
    values: Iterable[bytes], partition_of: Callable[[str], int], first: int = 1
) -> Iterator[Published | Told]:
    """Each value, numbered from `first`, under the merchant it names; what names none is told as rejected."""
    for number, value in enumerate(values, first):
        try:
            merchant = _whose.decode(value).merchant
        except (msgspec.ValidationError, msgspec.DecodeError):
            merchant = ""
        if is_merchant(merchant):
            yield Published(merchant, partition_of(merchant), number, value)
        else:
            yield Told(Published("", 0, number, value), "rejected", _NAMELESS)


@dataclass(slots=True)
class Lines:
    """The events of a file that belong to these merchants, or to all; an offset is a line's number."""

    file: BinaryIO
    merchants: frozenset[str]
    partition_of: Callable[[str], int]
    total: int = field(init=False)
    read: int = field(default=0, init=False)
    positions: dict[int, int] = field(default_factory=lambda: {0: 1}, init=False)

    def __post_init__(self) -> None:
        self.total = 0
        if self.file.seekable():
            self.total = self.file.seek(0, 2)
            self.file.seek(0)

    @property
    def left_out(self) -> dict[str, int]:
        """What was read and is not replayed: nothing, in a file."""
        return {}

    def windows(self) -> Iterator[list[Published | Told]]:
        """A few megabytes at a time; ``positions`` moves past a window when the next one is asked for."""
        while lines := self.file.readlines(_WINDOW_BYTES):
            values = [line.rstrip(b"\r\n") for line in lines]
            found = published(values, self.partition_of, self.positions[0])
            yield [one for one in found if self._is_chosen(one)]
            self.positions[0] += len(lines)
            self.read += sum(map(len, lines))

    def _is_chosen(self, one: Published | Told) -> bool:
        if isinstance(one, Told):
            return bool(one.record.value) and not self.merchants
        return not self.merchants or one.merchant in self.merchants


def write(file: BinaryIO, record: Published) -> None:
    """Append one record, as one line whatever its layout."""
    value = record.value
    file.write((msgspec.json.format(value, indent=-1) if b"\n" in value else value) + b"\n")
