"""Records beyond Kafka's 1 MiB: what is left out, so that one huge row neither stops its source nor is lost.

The old row goes first. Then the largest columns of the new row become null until it fits, each with its size and hash
in ``cut``; which ones is a function of that row alone, so a change and a snapshot of the same row are cut alike. Every
cut is logged with its table and key.
"""

from __future__ import annotations

import hashlib

import msgspec
import structlog

from pipeline.domain.event import Cut

# kafka-python refuses records beyond max_request_size (1 MiB) before they can hurt; key and framing need the rest.
LIMIT = 1024 * 1024 - 2048
# What a new row and its cuts may take: the envelope's other fields fit beside them, whatever the key.
IMAGE_LIMIT = LIMIT - 16 * 1024
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
            "record too large", table=table, key=key, before_dropped=dropped, columns_dropped=columns
        )
    return before, kept, cuts


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
