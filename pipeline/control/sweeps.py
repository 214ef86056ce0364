"""Sweeps on their way: which partitions a consumer has passed, which sweeps it may run, which it has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.control.database import ControlDatabase
from pipeline.domain.sweep import Sweep


@dataclass(frozen=True, slots=True)
class Passage:
    """A consumer's sink has accepted everything before the record of `sweep` at `offset` of a partition."""

    sweep: Sweep
    topic: str
    partition: int
    offset: int


def passed(database: ControlDatabase, consumer: str, passages: Sequence[Passage]) -> None:
    """Record passages, and the sweeps themselves where no other bridge has; again: changes nothing."""
    with database.transaction() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO sweeps (id, source, table_name, type, merchant, version, why)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [_row(passage.sweep) for passage in passages],
        )
        cursor.executemany(
            "INSERT INTO sweep_passages (consumer, sweep, topic, partition, record_offset)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [(consumer, one.sweep.id, one.topic, one.partition, one.offset) for one in passages],
        )


def _row(sweep: Sweep) -> tuple[str | int | None, ...]:
    return sweep.id, sweep.src, sweep.table, sweep.type, sweep.merchant, sweep.version, sweep.why
