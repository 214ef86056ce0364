"""Events as ready-made bulk lines: the row image is spliced in as it came, never parsed (about 5 µs a document)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec

from pipeline.consumer import Lane, SweepOrder
from pipeline.domain.event import Event
from pipeline.domain.routing import encode_key
from pipeline.search.naming import document_id, require_merchant, write_alias


class Change(NamedTuple):
    """One event on its way into its document: where it stands in its lane, and the document's id and encoded key."""

    lane: Lane
    position: int
    id: str
    key: str
    version: int

    @property
    def event(self) -> Event:
        """The event itself."""
        return self.lane.events[self.position]


def newest(lanes: Iterable[Lane], without: Mapping[str, Collection[int]]) -> list[Change]:
    """The newest event of each document; `without` names, per merchant, positions that are out of the question.

    Domain events are no documents. Newest by version: after a crash upstream, events come again behind newer ones.
    """
    kept: dict[str, Change] = {}
    for lane in lanes:
        merchant = require_merchant(lane.merchant)
        skipped = without.get(merchant, ())
        for position, event in enumerate(lane.events):
            if position in skipped or not event.is_row:
                continue
            key = encode_key(event.key)
            identifier, version = document_id(merchant, event.type, key), int(event.ver)
            rival = kept.get(identifier)
            if rival is None or rival.version < version:
                kept[identifier] = Change(lane, position, identifier, key, version)
    return list(kept.values())


def bulk_lines(deployment: str, change: Change) -> bytes | None:
    """The two lines of one document in a bulk, or None when the event's row image is no object."""
    event = change.event
    image = msgspec.json.encode(event.key) if event.op == "d" else _one_line(event.after)
    if not image.startswith(b'{"'):
        return None
    lane = change.lane
    return _LINES % (
        _target(deployment, event.type),
        _quoted(change.id),
        lane.merchant.encode(),
        change.version,
        lane.merchant.encode(),
        _quoted(change.key),
        change.version,
        _origin(event.src, event.table),
        b"true" if event.op == "d" else b"false",
        lane.partition,
        lane.offsets[change.position],
        image[1:],
    )


def tombstone_lines(
    deployment: str, order: SweepOrder, *, merchant: str, id_: str, key: str, columns: Mapping[str, object]
) -> bytes:
    """The two lines of a tombstone as a delete at the place of the sweep would leave it; `columns` are the key's."""
    partition, offset = order.place(require_merchant(merchant))
    lines = _LINES % (
        _target(deployment, order.type),
        _quoted(id_),
        merchant.encode(),
        order.version,
        merchant.encode(),
        _quoted(key),
        order.version,
        _origin(order.source, order.table),
        b"true",
        partition,
        offset,
        msgspec.json.encode(columns)[1:],
    )
    # A table that is no longer captured has no key that anybody knew: nothing follows `cdc` then.
    return lines if columns else lines.removesuffix(b",}\n") + b"}\n"


_LINES = (
    b'{"index":{"_index":%b,"_id":%b,"routing":"%b","version":%d,"version_type":"external"}}\n'
    b'{"cdc":{"merchant":"%b","key":%b,"ver":"%d",%b,"deleted":%b,"partition":%d,"offset":%d},%b\n'
)


def _one_line(raw: msgspec.Raw) -> bytes:
    """A line break between two JSON tokens would end the bulk line and shift every later document of the bulk."""
    image = bytes(raw)
    return msgspec.json.format(image, indent=-1) if b"\n" in image or image[1:2] != b'"' else image


def _quoted(text: str) -> bytes:
    return msgspec.json.encode(text)


@lru_cache(maxsize=4096)
def _target(deployment: str, type_: str) -> bytes:
    return _quoted(write_alias(deployment, type_))


@lru_cache(maxsize=4096)
def _origin(src: str, table: str) -> bytes:
    return b'"src":%b,"table":%b' % (_quoted(src), _quoted(table))


class Bulk(NamedTuple):
    """What one request carries."""

    changes: list[Change]
    body: bytes


def bulks(lines: Iterable[tuple[Change, bytes]], *, documents: int, size: int) -> Iterator[Bulk]:
    """Cut into requests of at most `documents` documents and `size` bytes; a larger document goes alone."""
    changes: list[Change] = []
    parts: list[bytes] = []
    total = 0
    for change, line in lines:
        if changes and (len(changes) == documents or total + len(line) > size):
            yield Bulk(changes, b"".join(parts))
            changes, parts, total = [], [], 0
        changes.append(change)
        parts.append(line)
        total += len(line)
    if changes:
        yield Bulk(changes, b"".join(parts))
