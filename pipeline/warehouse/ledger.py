"""The ledger of a type, in Redshift itself: a batch's row commits with the batch's data, so it says what was loaded."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from pipeline.consumer import SweepOrder
from pipeline.control.parts import Batch
from pipeline.warehouse import statements
from pipeline.warehouse.redshift import Session
from pipeline.warehouse.types import SinkTable


@dataclass(frozen=True, slots=True)
class Entry:
    """What a load did: rows applied, and rows the target already had at that version or a newer one."""

    applied: int
    stale: int


def lock(session: Session, schema: str, table: SinkTable) -> None:
    """Wait until no other load of the type is under way. Must be a transaction's first statement."""
    session.run(statements.lock_ledger(schema, table))


def find(session: Session, schema: str, table: SinkTable, id_: UUID) -> Entry | None:
    """The entry of a batch or a sweep: with it, it is done, whatever else is known."""
    rows = session.rows(statements.find_in_ledger(schema, table), (str(id_),))
    return Entry(int(rows[0][0]), int(rows[0][1])) if rows else None


def write(session: Session, schema: str, table: SinkTable, batch: Batch, entry: Entry) -> None:
    """Enter the batch."""
    lowest = min(part.lowest_version for part in batch.parts)
    highest = max(part.highest_version for part in batch.parts)
    session.run(
        statements.write_ledger(schema, table),
        (str(batch.id), len(batch.parts), batch.rows, entry.applied, entry.stale, lowest, highest),
    )


def write_sweep(
    session: Session, schema: str, table: SinkTable, id_: UUID, order: SweepOrder, rows: int
) -> None:
    """Enter a sweep that removed so many rows: no parts, and nothing stale."""
    session.run(
        statements.write_ledger(schema, table), (str(id_), 0, 0, rows, 0, order.version, order.version)
    )
