"""The envelope: one row change, or one domain event, as it travels through Kafka and lanes. JSON, versioned, strict.

The row images (``before``, ``after``) stay raw JSON: whoever only passes them on never parses them.
Numeric, int8 beyond 2^53 and float specials travel as strings, timestamps as ISO 8601 in UTC.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.domain.routing import Key, is_merchant
from pipeline.domain.version import Version
from pipeline.errors import MalformedEventError

Op = Literal["c", "u", "d", "r", "event"]
ENVELOPE_VERSION = 1


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What was left out of a row image: its size in bytes and the SHA-256 of its text, in hexadecimal."""

    bytes: int
    sha256: str


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One change of one row of one merchant.

    ``op``: c(reated), u(pdated), d(eleted), r(ead by a snapshot). ``before`` is null for c, r and for the first
    event of a row that came from another merchant; ``after`` is null for d. Times are milliseconds since 1970:
    ``ts_ms`` start of the writer's transaction, ``pub_ms`` when the relay published. ``cut`` names columns of the
    newest image that are null there because they are too large to travel.

    A domain event has op ``event``: its ``type`` is its own, ``after`` its payload, ``key`` is empty.
    """

    e: Literal[1]
    op: Op
    src: str
    table: str
    type: str
    key: Key
    merchant: str
    ver: str
    gen: int
    ev: int
    sub: int
    txid: int
    tick: int
    ts_ms: int
    pub_ms: int
    schema: str
    before: msgspec.Raw
    after: msgspec.Raw
    cut: dict[str, Cut] = {}

    @property
    def version(self) -> Version:
        """The 63-bit version; carried as text because JSON readers round integers beyond 2^53."""
        return Version(int(self.ver))

    @property
    def is_row(self) -> bool:
        """True for the change of a row, False for a domain event."""
        return self.op != "event"

    @property
    def deleted(self) -> bool:
        """True when the row no longer exists for this merchant."""
        return self.op == "d"

    def row(self) -> dict[str, Any]:
        """The newest image of the row, parsed: ``after``, or ``before`` of a delete. Empty when there is none."""
        image = self.before if self.op == "d" else self.after
        row = msgspec.json.decode(image)
        return row if isinstance(row, dict) else {}


_decoder = msgspec.json.Decoder(Event, strict=True)


def decode(value: bytes, merchant: str) -> Event:
    """Parse and check one record of the lane of `merchant`; MalformedEventError says what is wrong with it."""
    try:
        event = _decoder.decode(value)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise MalformedEventError(f"not an event of envelope version {ENVELOPE_VERSION}: {error}") from error
    if event.merchant != merchant:
        raise MalformedEventError(f'event of merchant "{event.merchant[:70]}" under the key of "{merchant}"')
    if not event.ver.isdecimal() or len(event.ver) > 19:
        raise MalformedEventError(f'version "{event.ver[:30]}" is not a 63-bit number')
    return event


def merchant_of_key(key: bytes | None) -> str | None:
    """The merchant a record's key names, or None when the key is absent or no merchant id."""
    if key is None:
        return None
    try:
        merchant = key.decode("ascii")
    except UnicodeDecodeError:
        return None
    return merchant if is_merchant(merchant) else None
