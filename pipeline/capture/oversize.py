"""Records beyond Kafka's 1 MiB: what is left out, so that one huge row neither stops its source nor is lost.

The old row goes first. Then the largest columns of the new row become null until it fits; which ones is a function of
that row alone, so a change and a snapshot of the same row are cut alike. Every cut is logged with its table and key.
"""

from __future__ import annotations

import msgspec
import structlog

# kafka-python refuses records beyond max_request_size (1 MiB) before they can hurt; key and framing need the rest.
LIMIT = 1024 * 1024 - 2048
# What a new row may take: the envelope's other fields fit beside it, whatever the key.
_IMAGE = LIMIT - 16 * 1024
_NULL = msgspec.Raw(b"null")
_Image = dict[str, msgspec.Raw]


def fit(table: str, key: str, before: str, after: str, room: int) -> tuple[str, str]:
    """`before` and `after` (JSON texts) cut down to `room` bytes together."""
    kept, columns = _cut(after, frozenset(msgspec.json.decode(key)))
    if len(before.encode()) + len(kept.encode()) + len(',"before":,"after":}') > room:
        before = "null"
    structlog.get_logger().warning(
        "record too large", table=table, key=key, before_dropped=before == "null", columns_dropped=columns
    )
    return before, kept


def _cut(image: str, spared: frozenset[str]) -> tuple[str, list[str]]:
    """The image with its largest columns null, until it fits; and which ones. `spared` columns always stay."""
    size = len(image.encode())
    if size <= _IMAGE:
        return image, []
    row = msgspec.json.decode(image.encode(), type=_Image)
    cut = []
    for name in sorted(row.keys() - spared, key=lambda name: (-len(bytes(row[name])), name)):
        if size <= _IMAGE:
            break
        size -= len(bytes(row[name])) - len(b"null")
        row[name] = _NULL
        cut.append(name)
    return msgspec.json.encode(row).decode(), cut
