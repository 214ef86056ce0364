"""Copies of lanes' records in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.bridge.copies import CopiedRecord
from pipeline.control.copies import Copy
from pipeline.errors import TransientError


@dataclass(eq=False)
class MemoryShelf:
    """Of one partition: its copies, and what lies in each object. `troubles` loads fail first."""

    copies: list[Copy] = field(default_factory=list)
    objects: dict[str, list[CopiedRecord]] = field(default_factory=dict)
    troubles: int = 0

    def listed(self, number: int, lanes: set[str]) -> Sequence[Copy]:
        """See Shelf."""
        found = [copy for copy in self.copies if copy.lane in lanes]
        return sorted(found, key=lambda copy: (copy.first, copy.lane))

    def load(self, key: str) -> Sequence[CopiedRecord]:
        """See Shelf."""
        if self.troubles:
            self.troubles -= 1
            raise TransientError("s3: switched off")
        return self.objects[key]
