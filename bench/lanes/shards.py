"""The queues of plain Celery, as its app, its forwarding process and the bench know them."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

PREFIX = "bench_lanes:plain:"
QUEUES = tuple(f"shard{number}" for number in range(4))
FORWARDING = "forwarding"  # what the forwarding process says when it begins


def queue_of(merchant: str) -> str:
    """Where a merchant's events go."""
    return QUEUES[zlib.crc32(merchant.encode()) % len(QUEUES)]


def tasks(records: Iterable[Any], size: int) -> dict[str, list[list[tuple[str, str]]]]:
    """By queue, the events of each task, in the order in which they were read."""
    found: dict[str, list[list[tuple[str, str]]]] = defaultdict(list)
    for record in records:
        merchant = record.key.decode()
        batches = found[queue_of(merchant)]
        if not batches or len(batches[-1]) == size:
            batches.append([])
        batches[-1].append((merchant, record.value.decode()))
    return found
