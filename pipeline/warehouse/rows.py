"""From events to rows of one type: folded per sink key, decoded, settled, ready to be written as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import msgspec

from pipeline.consumer import Lane, Turn
from pipeline.domain.event import Event
from pipeline.domain.routing import Key, encode_key
from pipeline.warehouse.types import MAX_KEY, SinkColumn, SinkTable
from pipeline.warehouse.values import Codec, Field, Unfit, codec

_NULL = b"null"
_ENDING = "%20"


@dataclass(frozen=True, slots=True)
class Pick:
    """The newest event of a sink key in a turn, and where it stands there."""

    lane: Lane
    index: int
    event: Event
    key: str

    def reject(self, reason: str) -> None:
        """Set the event aside."""
        self.lane.reject(self.index, reason)


def fold(turn: Turn) -> dict[str, list[Pick]]:
    """The newest event of each sink key, by type; domain events are no rows."""
    newest: dict[tuple[str, str, str], Pick] = {}
    for lane in turn:
        for index, event in enumerate(lane.events):
            if not event.is_row:
                continue
            key = sink_key(event.key)
            identity = (event.type, lane.merchant, key)
            known = newest.get(identity)
            if known is None or event.version > known.event.version:
                newest[identity] = Pick(lane, index, event, key)
    by_type: dict[str, list[Pick]] = {}
    for pick in newest.values():
        by_type.setdefault(pick.event.type, []).append(pick)
    return by_type


def sink_key(key: Key) -> str:
    """The key as ``_key`` stores it."""
    return stored_key(encode_key(key))


def stored_key(text: str) -> str:
    """An encoded key as ``_key`` stores it: trailing blanks are escaped, which Redshift's comparisons would ignore."""
    bare = text.rstrip(" ")
    return bare + _ENDING * (len(text) - len(bare))


def source_key(stored: str) -> str:
    """The key as everybody else encodes it."""
    bare = stored
    while bare.endswith(_ENDING):
        bare = bare[: -len(_ENDING)]
    return bare + " " * ((len(stored) - len(bare)) // len(_ENDING))


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of equal length, in the order of ``RowWriter.names``; None is NULL. Never empty."""

    columns: Sequence[Sequence[Field]]
    versions: Sequence[int]


class RowWriter:
    """Turns picks of one type into rows; what cannot be a row is rejected."""

    def __init__(self, table: SinkTable) -> None:
        self.table = table
        self._codecs = [codec(column.type) for column in table.columns]
        self._decoder = msgspec.json.Decoder(_row_struct(table.columns, self._codecs))

    def rows(self, picks: Iterable[Pick]) -> Rows | None:
        """The rows of these events, or None when every one of them was rejected."""
        images = [(pick, image) for pick in picks if (image := self._image(pick)) is not None]
        if not images:
            return None
        flags = {
            index: [column.name for column in self.table.columns if column.source_name in cut]
            for index, (pick, _) in enumerate(images)
            if (cut := pick.event.cut)
        }
        faults: dict[int, str] = {}
        columns: list[Sequence[Field]] = []
        for position, values in enumerate(zip(*(image for _, image in images), strict=True)):
            columns.append(self._settle(position, values, flags, faults))
        for index, reason in faults.items():
            images[index][0].reject(reason)
        columns += _added([pick for pick, _ in images], flags)
        return _without(faults, columns)

    def _image(self, pick: Pick) -> Sequence[Any] | None:
        """The row's values in column order; of a delete without an image, the key's alone."""
        event = pick.event
        if len(pick.key.encode()) > MAX_KEY:
            pick.reject(f"the key is longer than {MAX_KEY} bytes")
            return None
        image = event.before if event.deleted else event.after
        if event.deleted and bytes(image) == _NULL:
            return [event.key.get(column.source_name) for column in self.table.columns]
        try:
            return msgspec.structs.astuple(self._decoder.decode(image))
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            pick.reject(f"not a row of type {self.table.type}: {error}")
            return None

    def _settle(
        self, position: int, values: Sequence[Any], flags: dict[int, list[str]], faults: dict[int, str]
    ) -> Sequence[Field]:
        column, rules = self.table.columns[position], self._codecs[position]
        present = [value for value in values if value is not None]
        if not present or rules.plain(present):
            return values
        fields: list[Field] = []
        for index, value in enumerate(values):
            try:
                settled = (None, False) if value is None else rules.settle(value)
            except Unfit as unfit:
                settled = (None, False)
                faults.setdefault(index, f"column {column.source_name}: {unfit}")
            fields.append(settled[0])
            if settled[1]:
                flags.setdefault(index, []).append(column.name)
        return fields


def _row_struct(columns: Sequence[SinkColumn], codecs: Sequence[Codec]) -> type[msgspec.Struct]:
    """A struct of the row as it comes, every column required; its fields are numbered, since names may be keywords."""
    fields = [(f"c{number}", rules.wire) for number, rules in enumerate(codecs)]
    names = {f"c{number}": column.source_name for number, column in enumerate(columns)}
    return msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True, gc=False)


def _added(picks: Sequence[Pick], flags: dict[int, list[str]]) -> list[Sequence[Field]]:
    """The columns that are ours, in the order of ``statements.STAGED``."""
    events = [pick.event for pick in picks]
    return [
        [event.merchant for event in events],
        [pick.key for pick in picks],
        [event.src for event in events],
        [int(event.ver) for event in events],
        ["t" if event.deleted else "f" for event in events],
        [",".join(flags[index]) if index in flags else None for index in range(len(picks))],
    ]


def _without(faults: dict[int, str], columns: list[Sequence[Field]]) -> Rows | None:
    if faults:
        count = len(columns[0])
        if len(faults) == count:
            return None
        wanted = [index not in faults for index in range(count)]
        columns = [list(compress(column, wanted)) for column in columns]
    return Rows(columns, [version for version in columns[-3] if isinstance(version, int)])
