"""Version: one 63-bit integer that grows with every state of a sink key.

Layout, most significant first: generation (14 bits), ev_id (46), kind (1: 0 event, 1 snapshot row), sub (2).
Comparing two versions of the same key tells which state is newer; nothing else about them is an order.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

Version = NewType("Version", int)

GENERATION_BITS, EV_BITS, KIND_BITS, SUB_BITS = 14, 46, 1, 2
MAX_GENERATION = (1 << GENERATION_BITS) - 1
MAX_EV_ID = (1 << EV_BITS) - 1
_EV_SHIFT = KIND_BITS + SUB_BITS
_GENERATION_SHIFT = EV_BITS + _EV_SHIFT

EVENT, SNAPSHOT = 0, 1


class VersionParts(NamedTuple):
    """The four numbers inside a version."""

    generation: int
    ev_id: int
    kind: int
    sub: int


def pack(generation: int, ev_id: int, kind: int = EVENT, sub: int = 0) -> Version:
    """Build a version; ValueError when a part does not fit its bits."""
    if not (0 < generation <= MAX_GENERATION and 0 <= ev_id <= MAX_EV_ID and kind in (0, 1) and 0 <= sub < 4):
        raise ValueError(f"no version has generation {generation}, ev_id {ev_id}, kind {kind}, sub {sub}")
    return Version(generation << _GENERATION_SHIFT | ev_id << _EV_SHIFT | kind << SUB_BITS | sub)


def unpack(version: int) -> VersionParts:
    """Take a version apart."""
    return VersionParts(
        version >> _GENERATION_SHIFT,
        version >> _EV_SHIFT & MAX_EV_ID,
        version >> SUB_BITS & 1,
        version & (1 << SUB_BITS) - 1,
    )
