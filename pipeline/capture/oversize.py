"""Records beyond Kafka's 1 MiB, and JSON too deep for its readers: what is left out, so that one row stops nobody.

The old row goes first. Then the largest columns of the new row become null until it fits, each with its size and hash
in ``cut``; which ones is a function of that row alone, so a change and a snapshot of the same row are cut alike. So do
values of more levels than `DEEPEST`: JSON readers recurse, and give up at about a thousand. Every cut is logged with its
table and key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import msgspec
import structlog

from pipeline.domain.event import Cut

# kafka-python refuses records beyond max_request_size (1 MiB) before they can hurt; key and framing need the rest.
LIMIT = 1024 * 1024 - 2048
# What a new row and its cuts may take: the envelope's other fields fit beside them, whatever the key.
IMAGE_LIMIT = LIMIT - 16 * 1024
DEEPEST = 100
_LOGGED_KEY = 200  # characters of a key that stand in the log
_NULL = msgspec.Raw(b"null")
_Image = dict[str, msgspec.Raw]
_Cuts = dict[str, Cut]


def fit(
    table: str, key: str, before: str, after: str, cut: str | None, room: int
) -> tuple[str, str, str | None]:
    """`before`, `after` and `cut` (JSON texts; `cut` what is cut from `after` already) in `room` bytes together."""
    kept, cuts = _cut(after, cut, frozenset(msgspec.json.decode(key)))
    taken = len(before.encode()) + len(kept.encode()) + len(cuts or "") + len(',"cut":,"before":,"after":}')
    dropped = taken > room
    if dropped:
        before = "null"
    if dropped or cuts != cut:
        columns = sorted(msgspec.json.decode(cuts)) if cuts else []
        structlog.get_logger().warning(
            "record too large",
            table=table,
            key=key[:_LOGGED_KEY],
            before_dropped=dropped,
            columns_dropped=columns,
        )
    return before, kept, cuts


def is_deep(image: str) -> bool:
    """True when the image has a value of more than `DEEPEST` levels."""
    if image.count("[") + image.count("{") <= DEEPEST:
        return False
    return any(levels > DEEPEST for _, _, levels in _fields(image))


def shallow(table: str, key: str, image: str, cut: str | None) -> tuple[str, str | None]:
    """The image without its deep values, which become part of its cut. It must be deep."""
    cuts: _Cuts = msgspec.json.decode(cut, type=_Cuts) if cut else {}
    kept = []
    for name, value, levels in _fields(image):
        if levels > DEEPEST:
            cuts[msgspec.json.decode(name)] = _described(value.encode())
        kept.append(f"{name}:{'null' if levels > DEEPEST else value}")
    structlog.get_logger().warning(
        "value too deep", table=table, key=key[:_LOGGED_KEY], columns_dropped=sorted(cuts)
    )
    return "{" + ",".join(kept) + "}", msgspec.json.encode(cuts).decode()


# A string as a whole, so that what is in it does not count; or what opens, closes or separates.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]')


def _fields(image: str) -> Iterator[tuple[str, str, int]]:
    """Name and value of each field of a JSON object, as they stand there, and how many levels the value has."""
    level = levels = start = 0
    name = ""
    for token in _TOKEN.finditer(image):
        mark = token[0]
        if mark in ("{", "["):
            level += 1
            levels = max(levels, level - 1)
        elif level == 1 and mark == ":":
            start = token.end()
        elif level == 1 and mark in (",", "}"):
            yield name, image[start : token.start()], levels
            name, levels = "", 0
        elif level == 1 and not name:
            name = mark
        if mark in ("}", "]"):
            level -= 1


def _cut(image: str, cut: str | None, spared: frozenset[str]) -> tuple[str, str | None]:
    """The image with its largest columns null, until it fits with its cuts. `spared` columns always stay."""
    size = len(image.encode()) + len((cut or "").encode())
    if size <= IMAGE_LIMIT:
        return image, cut
    row = msgspec.json.decode(image.encode(), type=_Image)
    cuts: _Cuts = msgspec.json.decode(cut, type=_Cuts) if cut else {}
    for name in sorted(row.keys() - spared, key=lambda name: (-len(bytes(row[name])), name)):
        if size <= IMAGE_LIMIT:
            break
        value = bytes(row[name])
        cuts[name] = _described(value)
        row[name] = _NULL
        size += len(msgspec.json.encode({name: cuts[name]})) + len(_NULL) - len(value)
    return msgspec.json.encode(row).decode(), msgspec.json.encode(cuts).decode()


def _described(value: bytes) -> Cut:
    """As the trigger describes what it leaves out: by the value's text, which in JSON may be a quoted string."""
    text = msgspec.json.decode(value, type=str).encode() if value[:1] == b'"' else value
    return Cut(len(text), hashlib.sha256(text).hexdigest())
