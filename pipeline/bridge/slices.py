"""What was read of partitions and not handed out yet: who reads them may want a backlog in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from pipeline.ports import Record


class Slices:
    """Records by partition, in order. A partition that has some here is not read on in Kafka until they are gone."""

    def __init__(self) -> None:
        self._kept: dict[int, Sequence[Record]] = {}

    @property
    def partitions(self) -> frozenset[int]:
        """Those that have some."""
        return frozenset(self._kept)

    def first(self, number: int) -> int | None:
        """The first offset that is kept of a partition, if there is one."""
        kept = self._kept.get(number)
        return kept[0].offset if kept else None

    def forget(self, numbers: Iterable[int]) -> None:
        """They are read from elsewhere, or no more."""
        for number in numbers:
            self._kept.pop(number, None)

    def cut(
        self, found: Mapping[int, Sequence[Record]], most: int | None, stopped: Set[int]
    ) -> dict[int, Sequence[Record]]:
        """Of each partition that is not stopped at most `most` of what is kept and of what was `found` now; the rest is kept."""
        for number, records in found.items():
            kept = self._kept.get(number)
            self._kept[number] = [*kept, *records] if kept else records
        given = {}
        for number in self._kept.keys() - stopped:
            records = self._kept.pop(number)
            if most is not None and len(records) > most:
                self._kept[number] = records[most:]
                records = records[:most]
            given[number] = records
        return given
