"""A sweep: whatever a source wrote of a type at a lower version is gone, though no event says so row by row.

It travels as one record without key in every partition of the topics of changes and of snapshot rows. A consumer may run
it once its sink has accepted everything before it in all of them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Why = Literal["truncate", "snapshot", "move"]


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What `src` wrote of `type`, of one `merchant` or of all, at a version below `ver` (63 bits, as text).

    ``id`` is the same however often it is published. ``why``: the table was truncated; a snapshot brought every row that
    exists, and spares keys of which an event is set aside; or the merchant lives in another source now.
    """

    e: Literal[1]
    op: Literal["sweep"]
    id: str
    src: str
    table: str
    type: str
    merchant: str | None
    ver: str
    why: Why
    key: None = None

    @property
    def version(self) -> int:
        """The version below which it removes."""
        return int(self.ver)


_HIGHEST = 2**63 - 1
_LONGEST_ID = 1000  # bytes; an index entry holds some 2,700
_decoder = msgspec.json.Decoder(Sweep, strict=True)


def decode_sweep(value: bytes | None) -> Sweep | None:
    """The sweep in a record without key; None when it is anything else."""
    if value is None:
        return None
    try:
        sweep = _decoder.decode(value)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
        return None
    return sweep if _is_storable(sweep) else None


def _is_storable(sweep: Sweep) -> bool:
    """True when the control database takes it: a bridge that cannot record a sweep never passes it."""
    texts = (sweep.id, sweep.src, sweep.table, sweep.type, sweep.merchant or "")
    version = sweep.ver
    return (
        version.isdecimal()
        and len(version) <= len(str(_HIGHEST))
        and int(version) <= _HIGHEST
        and not any("\0" in text for text in texts)
        and len(sweep.id.encode()) <= _LONGEST_ID
    )


def encode_sweep(sweep: Sweep) -> bytes:
    """The record's value."""
    return msgspec.json.encode(sweep)
