"""Which merchants belong to a partition, and under which name their lanes go."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.domain.event import merchant_of_key
from pipeline.domain.routing import lane_of, merchant_of_lane, partition_of


@dataclass(frozen=True, slots=True)
class Belonging:
    """Of partition `number`, numbered through topics of so many `partitions`: those beyond hold rows that snapshots read."""

    number: int
    partitions: int

    @property
    def own_number(self) -> int:
        """The partition's number within its topic."""
        return self.number % self.partitions

    @property
    def snapshot(self) -> bool:
        """True in the topic of rows that snapshots read."""
        return self.number >= self.partitions

    def lane(self, key: bytes) -> str | None:
        """The lane of a record's key; None when it belongs to no merchant, or elsewhere."""
        merchant = merchant_of_key(key)
        if merchant is None or partition_of(merchant, self.partitions) != self.own_number:
            return None
        return lane_of(merchant, snapshot=self.snapshot)

    def strangeness(self, key: bytes) -> str:
        """Why a key has no lane here."""
        merchant = merchant_of_key(key)
        if merchant is None:
            return f"the key {key[:70]!r} is no merchant id"
        right = partition_of(merchant, self.partitions)
        return f'merchant "{merchant}" belongs to partition {right}, not {self.own_number}'

    def owns(self, lane: str) -> bool:
        """True when that lane is of this partition."""
        return self.lane(key_of(lane)) == lane


def key_of(lane: str) -> bytes:
    """The records' key of a lane."""
    return merchant_of_lane(lane).encode()
