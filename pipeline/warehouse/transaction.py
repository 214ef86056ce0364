"""One batch into Redshift: one connection, one transaction, exactly one effect however often it is tried."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from pipeline.control.parts import Batch
from pipeline.errors import PermanentError
from pipeline.failpoints import passes
from pipeline.storage import Bucket
from pipeline.warehouse import ledger, statements
from pipeline.warehouse.ledger import Entry
from pipeline.warehouse.redshift import Session, StatementRefusedError, session
from pipeline.warehouse.types import SinkTable

_FIRST_CLAUSE = re.compile(r"[^,:'\[]*")


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """Where loads go: Redshift's URL (a secret), the schema, and the role that COPY reads the bucket with."""

    url: str
    schema: str
    iam_role: str


def manifest(bucket: Bucket, batch: Batch) -> bytes:
    """COPY's list of files. Mandatory each: by default Redshift skips a missing file in silence."""
    entries = [
        {"url": bucket.url(part.location), "mandatory": True, "meta": {"content_length": part.bytes}}
        for part in batch.parts
    ]
    return msgspec.json.encode({"entries": entries})


def load(target: Target, table: SinkTable, batch: Batch, manifest_url: str) -> Entry:
    """Load the batch unless the ledger has it; returns its entry.

    WarehouseUnavailableError leaves the outcome open and asks for the same call again, which reads the ledger first.
    Any other error is permanent and has changed nothing.
    """
    with session(target.url) as warehouse:
        ledger.lock(warehouse, target.schema, table)
        entry = ledger.find(warehouse, target.schema, table, batch.id)
        if entry is not None:
            return entry
        _copy(warehouse, target, table, batch, manifest_url)
        passes("load.copied")
        entry = _apply(warehouse, target, table)
        ledger.write(warehouse, target.schema, table, batch, entry)
        passes("load.merged")
        warehouse.commit()
    return entry


def _copy(warehouse: Session, target: Target, table: SinkTable, batch: Batch, manifest_url: str) -> None:
    marker = batch.parts[0].marker
    warehouse.run(statements.create_stage(target.schema, table, statements.STAGE))
    try:
        warehouse.run(statements.copy(table, manifest_url, marker, target.iam_role))
    except StatementRefusedError as error:
        raise PermanentError(f"{error.what}{_detail(warehouse)}") from error
    copied = warehouse.rows("SELECT pg_last_copy_count()")[0][0]
    if copied != batch.rows:
        raise PermanentError(f"COPY took {copied} rows of {batch.rows}")


def _detail(warehouse: Session) -> str:
    """Which column, file and line; of the reason its first clause, since what follows may quote the value."""
    warehouse.rollback()
    for column, code, reason, file, line in warehouse.rows(statements.find_load_error()):
        clause = _FIRST_CLAUSE.match(str(reason))
        return f': column "{column}": {clause[0].strip() if clause else ""} (code {code}), {file} line {line}'
    return ""


def _apply(warehouse: Session, target: Target, table: SinkTable) -> Entry:
    warehouse.run(statements.create_stage(target.schema, table, statements.FRESH))
    warehouse.run(statements.keep_newest(table))
    stale = warehouse.run(statements.drop_stale(target.schema, table))
    applied = int(warehouse.rows(statements.count_fresh())[0][0])
    warehouse.run(statements.merge(target.schema, table))
    return Entry(applied, stale)
