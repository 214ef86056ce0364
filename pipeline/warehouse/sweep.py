"""A sweep in Redshift: one transaction in its type's ledger, once everything staged before it is loaded.

Loads of the type and the sweep queue at the ledger's lock. A part that is loaded later was staged later: what it holds
below the sweep's version came before and comes again, so its row is in the target already, and the load finds it stale.
"""

from __future__ import annotations

from itertools import islice
from uuid import NAMESPACE_OID, UUID, uuid5

from pipeline.consumer import SinkUnavailableError, SweepOrder
from pipeline.control import parts
from pipeline.control.database import ControlDatabase
from pipeline.errors import TransientError
from pipeline.failpoints import passes
from pipeline.settings import Settings
from pipeline.warehouse import ledger, statements
from pipeline.warehouse.redshift import Session, WarehouseUnavailableError, session
from pipeline.warehouse.rows import stored_key
from pipeline.warehouse.transaction import Target
from pipeline.warehouse.types import MAX_KEY, SinkTable

_KEYS = 1000  # in one INSERT; the driver binds at most 32,767 values


class WarehouseSweep:
    """Sweeps the tables of one deployment. Safe to run anywhere and twice."""

    def __init__(self, settings: Settings, database: ControlDatabase) -> None:
        url = settings.environment.redshift_url.get_secret_value()
        self._target = Target(url, settings.warehouse_schema, settings.copy_role)
        self._database = database

    def __call__(self, order: SweepOrder) -> int:
        """Carry out an order; returns how many rows it removed.

        TransientError while parts that came before wait to be loaded. SinkUnavailableError leaves the outcome open; the
        same call again reads the ledger first.
        """
        unloaded = parts.unloaded_before(self._database, order.type, order.consumer, order.id)
        if unloaded:
            raise TransientError(f"{unloaded} parts of {order.type} that came before it wait to be loaded")
        try:
            return sweep(self._target, order)
        except WarehouseUnavailableError as error:
            raise SinkUnavailableError(error.what, hint=error.hint) from error


def sweep(target: Target, order: SweepOrder) -> int:
    """Make tombstones of what the order removes, unless the ledger has it; returns how many."""
    table, id_ = SinkTable(order.type, "", ()), ledger_id(order)
    with session(target.url) as warehouse:
        ledger.lock(warehouse, target.schema, table)
        entry = ledger.find(warehouse, target.schema, table, id_)
        if entry is not None:
            return entry.applied
        rows = _remove(warehouse, target.schema, table, order)
        ledger.write_sweep(warehouse, target.schema, table, id_, order, rows)
        passes("sweep.updated")
        warehouse.commit()
    passes("sweep.committed")
    return rows


def ledger_id(order: SweepOrder) -> UUID:
    """The name of the order in the ledger: the same for every attempt."""
    return uuid5(NAMESPACE_OID, f"sweep {order.consumer} {order.id}")


def _remove(warehouse: Session, schema: str, table: SinkTable, order: SweepOrder) -> int:
    # A longer key cannot be in the target.
    keys = ((merchant, stored_key(key)) for merchant, key in sorted(order.spared))
    spared = iter([(merchant, key) for merchant, key in keys if len(key.encode()) <= MAX_KEY])
    if order.spared:
        warehouse.run(statements.create_spared())
    while chunk := list(islice(spared, _KEYS)):
        warehouse.run(statements.insert_spared(len(chunk)), [value for pair in chunk for value in pair])
    statement = statements.sweep(schema, table, of_one=order.merchant is not None, sparing=bool(order.spared))
    of_one = () if order.merchant is None else (order.merchant,)
    return warehouse.run(statement, (order.version, order.source, order.version, *of_one))
