"""Loading what waits: per type, one at a time, frozen before the first attempt, tried until the ledger has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal
from uuid import UUID

import stamina

from pipeline.control import flights, parts, tables
from pipeline.control.database import ControlDatabase
from pipeline.control.parts import Batch, Due
from pipeline.domain.table import by_type
from pipeline.errors import PermanentError, TransientError
from pipeline.failpoints import passes
from pipeline.settings import Settings, seconds
from pipeline.storage import Bucket
from pipeline.warehouse import transaction
from pipeline.warehouse.ledger import Entry
from pipeline.warehouse.redshift import WarehouseUnavailableError
from pipeline.warehouse.transaction import Target
from pipeline.warehouse.types import SinkTable, sink_table

_ATTEMPTS, _FIRST_WAIT, _LONGEST_WAIT = 5, 0.2, 5.0
_CONCURRENT_TYPES = 4  # a load waits for Redshift nearly all of its time
_GRACE = 3600.0


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one type: batches and rows loaded, and why it stopped if it did.

    ``busy``: somebody else loads it now. ``unavailable``: tried again at the next hint. ``failed``: until a person does.
    """

    type: str
    status: Literal["loaded", "busy", "unavailable", "failed"]
    batches: int = 0
    applied: int = 0
    stale: int = 0
    error: str = ""

    def facts(self) -> dict[str, str | int]:
        """For a log line."""
        return asdict(self)

    def with_batch(self, entry: Entry) -> Report:
        """One batch more."""
        return replace(
            self,
            batches=self.batches + 1,
            applied=self.applied + entry.applied,
            stale=self.stale + entry.stale,
        )


class Loader:
    """Loads of one deployment. Safe to run anywhere and twice: a hint to load carries no duty of its own."""

    def __init__(self, settings: Settings, bucket: Bucket) -> None:
        warehouse = settings.configuration.warehouse
        self._control_url = settings.environment.control_database_url.get_secret_value()
        self._bucket = bucket
        self._prefix = f"loads/{settings.deployment}"
        self._due = Due(seconds(warehouse.load_after), warehouse.load_bytes)
        url = settings.environment.redshift_url.get_secret_value()
        self._target = Target(url, settings.warehouse_schema, settings.copy_role)

    def load_due(self) -> list[Report]:
        """Load every type whose parts are due; failed ones are left alone, and nobody's trouble stops another's load."""
        with closing(ControlDatabase(self._control_url)) as database:
            waiting = parts.types_due(database, self._due)
        return self._load(waiting, self._due, retry_failed=False)

    def load_now(self, types: Sequence[str] = ()) -> list[Report]:
        """Load all that waits, of these types or of all, and try failed loads again."""
        now = Due(0.0, self._due.bytes)
        with closing(ControlDatabase(self._control_url)) as database:
            waiting = parts.types_due(database, now)
        wanted = [type_ for type_ in waiting if not types or type_ in types]
        return self._load(wanted, now, retry_failed=True)

    def expire(self, grace: float = _GRACE) -> int:
        """Delete the objects of parts that were loaded more than `grace` seconds ago; returns how many parts."""
        with closing(ControlDatabase(self._control_url)) as database:
            old = parts.expired(database, grace)
            if old:
                manifests = {self._manifest_key(part.type, part.batch_id) for part in old}
                self._bucket.delete([*(part.location for part in old), *manifests])
                parts.forget(database, [part.id for part in old])
        return len(old)

    def _load(self, types: Sequence[str], due: Due, *, retry_failed: bool) -> list[Report]:
        one = partial(self._load_type, due=due, retry_failed=retry_failed)
        if len(types) < 2:
            return [one(type_) for type_ in types]
        with ThreadPoolExecutor(_CONCURRENT_TYPES, thread_name_prefix="load") as pool:
            return list(pool.map(one, types))

    def _load_type(self, type_: str, due: Due, *, retry_failed: bool) -> Report:
        locks = ControlDatabase(self._control_url)
        with (
            flights.single_flight(locks, f"load {type_}") as alone,
            closing(ControlDatabase(self._control_url)) as database,
        ):
            if not alone:
                return Report(type_, "busy")
            return self._load_batches(database, type_, due, retry_failed=retry_failed)

    def _load_batches(self, database: ControlDatabase, type_: str, due: Due, *, retry_failed: bool) -> Report:
        report = Report(type_, "loaded")
        while (batch := parts.open_batch(database, type_) or parts.freeze(database, type_, due)) is not None:
            if batch.status == "failed" and not retry_failed:
                return replace(
                    report, status="failed", error="failed before, waits for: pipeline warehouse load"
                )
            try:
                entry = self._load_batch(database, batch)
            except TransientError as error:
                parts.troubled(database, batch.id, str(error), failed=False)
                return replace(report, status="unavailable", error=str(error))
            except PermanentError as error:
                parts.troubled(database, batch.id, str(error), failed=True)
                return replace(report, status="failed", error=str(error))
            report = report.with_batch(entry)
        return report

    def _load_batch(self, database: ControlDatabase, batch: Batch) -> Entry:
        passes("load.frozen")
        table = _table_of(database, batch)
        manifest_key = self._manifest_key(batch.type, batch.id)
        self._bucket.put({manifest_key: transaction.manifest(self._bucket, batch)})
        entry = self._until_known(database, batch, partial(self._transaction, table, batch, manifest_key))
        passes("load.committed")
        parts.loaded(database, batch.id, entry.applied, entry.stale)
        return entry

    def _transaction(self, table: SinkTable, batch: Batch, manifest_key: str) -> Entry:
        return transaction.load(self._target, table, batch, self._bucket.url(manifest_key))

    @staticmethod
    def _until_known(database: ControlDatabase, batch: Batch, attempt: Callable[[], Entry]) -> Entry:
        for retry in stamina.retry_context(
            on=WarehouseUnavailableError,
            attempts=_ATTEMPTS,
            timeout=None,
            wait_initial=_FIRST_WAIT,
            wait_max=_LONGEST_WAIT,
            wait_jitter=_FIRST_WAIT,
        ):
            with retry:
                parts.attempted(database, batch.id)
                return attempt()
        raise AssertionError  # the last attempt returns or raises

    def _manifest_key(self, type_: str, batch_id: UUID) -> str:
        return f"{self._prefix}/{type_}/{batch_id}.manifest"


def _table_of(database: ControlDatabase, batch: Batch) -> SinkTable:
    """The table as the batch's parts were written; PermanentError when it is another by now."""
    table = by_type(tables.load(database)).get(batch.type)
    if table is None:
        raise PermanentError(f'no captured table has type "{batch.type}" any more')
    shape = batch.parts[0].shape
    if table.shape != shape:
        raise PermanentError(
            f"the parts were written for columns of shape {shape}, the table's are {table.shape}",
            hint="a column was added, dropped or changed after they were staged",
        )
    return sink_table(table)
