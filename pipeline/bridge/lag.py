"""How far a consumer's sink is behind, for heartbeats."""

from __future__ import annotations

from pipeline.bridge.holdings import Holdings
from pipeline.ports import RecordSource


class Lag:
    """Records of the partitions that are held, as of the last look; read from other threads."""

    def __init__(self, source: RecordSource, holdings: Holdings) -> None:
        self._source = source
        self._holdings = holdings
        self.changes = self.snapshots = 0

    def measure(self) -> None:
        """In snapshots detached lanes that run count too: relays publish no more than the sink keeps up with."""
        held = self._holdings.partitions
        ends = self._source.ends(frozenset(held))
        self.changes = sum(
            max(0, ends[one.number] - one.committed) for one in held.values() if not one.snapshot
        )
        self.snapshots = sum(
            max(0, ends[one.number] - one.accepted_by_running()) for one in held.values() if one.snapshot
        )
