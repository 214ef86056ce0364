"""How the Kafka client is set up. Two of these are cures of its bugs, each tested on the real broker.

``max_poll_records`` lies far above what a fetch can bring, so that each poll drains all that was fetched: a partition
that is paused while partly drained is never read again after `resume`, and what is left over of a busy partition
waits behind the long poll for an idle one. The fetch sizes bound memory instead, of which a fetch takes ten times its size
while it is decoded and appended; and that of a partition how long its backlog keeps the others' records waiting: a round has
one or two thousand records of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

READING: Mapping[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "max_poll_records": 10**6,
    "fetch_max_bytes": 512 * 1024,
    "max_partition_fetch_bytes": 256 * 1024,
    "fetch_max_wait_ms": 250,
    "metrics_enabled": False,
}
# For whoever wants a backlog in slices.
SMALL_PIECE = 64 * 1024
# Who reads again beside the live reader is given less at once: there are several, and nobody waits for them.
REREADING: Mapping[str, Any] = {
    **READING,
    "fetch_max_bytes": 128 * 1024,
    "max_partition_fetch_bytes": SMALL_PIECE,
}
# A killed member's partitions are given away only after its session; 6 s is the least that brokers allow by default.
MEMBERSHIP: Mapping[str, Any] = {
    "session_timeout_ms": 6000,
    "heartbeat_interval_ms": 1500,
    "reconnect_backoff_max_ms": 1000,
}


def membership(instance: str | None) -> Mapping[str, Any]:
    """How a member belongs to its group. Under a name it never leaves: its partitions wait 30 s for its return."""
    if instance is None:
        return MEMBERSHIP
    return {**MEMBERSHIP, "session_timeout_ms": 30_000, "group_instance_id": instance}
