"""Where a merchant's events go: partition, lane and sink key, all functions of the merchant alone."""

from __future__ import annotations

import re
import zlib
from typing import NewType

MerchantId = NewType("MerchantId", str)
KeyValue = int | str | bool
Key = dict[str, KeyValue]

_SNAPSHOT = "s."
_MERCHANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}|_[a-z][a-z0-9_]{0,62}")


def is_merchant(text: str) -> bool:
    """True for a merchant id, and for ``_<source>``, which owns the rows that belong to no merchant."""
    return _MERCHANT.fullmatch(text) is not None


def partition_of(merchant: str, partitions: int) -> int:
    """The partition of a merchant: crc32, the same in every process and every release."""
    return zlib.crc32(merchant.encode()) % partitions


def snapshot_topic(datastream: str) -> str:
    """The topic of snapshot rows beside a topic of changes."""
    return f"{datastream}.snapshot"


def lane_of(merchant: str, *, snapshot: bool) -> str:
    """The name of a merchant's lane: the merchant's, or ``s.<merchant>`` for the rows that snapshots read.

    A dot is in no merchant id.
    """
    return f"{_SNAPSHOT}{merchant}" if snapshot else merchant


def is_snapshot_lane(lane: str) -> bool:
    """True for a lane of rows that snapshots read."""
    return lane.startswith(_SNAPSHOT)


def merchant_of_lane(lane: str) -> str:
    """Whose lane it is."""
    return lane.removeprefix(_SNAPSHOT)


def lane_queue(consumer: str, lane: str) -> str:
    """The Celery queue of a lane: ``<consumer>.m.<merchant>`` or ``<consumer>.s.<merchant>``."""
    return f"{consumer}.{lane}" if is_snapshot_lane(lane) else f"{consumer}.m.{lane}"


def encode_key(key: Key) -> str:
    """A primary key as one text, injective: values in column order, ``%`` and ``:`` escaped, joined by ``:``."""
    return ":".join(_text(value).replace("%", "%25").replace(":", "%3A") for value in key.values())


def _text(value: KeyValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
