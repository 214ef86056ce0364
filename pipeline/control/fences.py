"""Fences: at every assignment of a partition the bridge draws the next one; a lower one is refused everywhere."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.control.database import ControlDatabase


def draw(database: ControlDatabase, consumer: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """The next fence of each partition, drawn in one transaction."""
    fences = {}
    with database.transaction() as connection:
        for partition in sorted(partitions):
            row = connection.execute(
                "INSERT INTO fences (consumer, topic, partition, fence) VALUES (%s, %s, %s, 1)"
                " ON CONFLICT (consumer, topic, partition) DO UPDATE SET fence = fences.fence + 1 RETURNING fence",
                (consumer, topic, partition),
            ).fetchone()
            assert row is not None  # INSERT ... RETURNING yields the row
            fences[partition] = int(row[0])
    return fences
