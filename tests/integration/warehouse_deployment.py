"""A deployment of its own for a warehouse test: control database, schema, bucket prefix, and events to stage."""

import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from pipeline import settings
from pipeline.consumer import Lane, Turn
from pipeline.control import database as control
from pipeline.control import tables
from pipeline.control.database import ControlDatabase
from pipeline.domain.event import Event
from pipeline.domain.table import Column, Table
from pipeline.settings import Settings
from pipeline.storage import Bucket
from pipeline.warehouse.loader import Loader
from pipeline.warehouse.reader import StoredRow, scan
from pipeline.warehouse.redshift import Session, session
from pipeline.warehouse.stager import Stager
from pipeline.warehouse.tables import ensure_tables
from pipeline.warehouse.transaction import Target
from tasks.warehouse import stage

TYPES = ("payment", "refund", "payout")
COLUMNS = (
    Column("id", "bigint", nullable=False),
    Column("merchant_id", "bigint", nullable=False),
    Column("Amount", "numeric(18,2)"),
    Column("rate", "numeric"),
    Column("score", "double precision"),
    Column("note", "character varying(20)"),
    Column("is_test", "boolean"),
    Column("details", "jsonb"),
    Column("secret", "bytea"),
    Column("created_at", "timestamp with time zone"),
    Column("day", "date"),
    Column("at", "time without time zone"),
    Column("tags", "text[]"),
)
SHAPE = {type_: Table("shop", f"public.{type_}s", type_, "merchant_id", ("id",), COLUMNS) for type_ in TYPES}


def image(id_: int, merchant: str, **changed: Any) -> dict[str, Any]:
    """A row as the envelope carries it."""
    row = {
        "id": id_,
        "merchant_id": int(merchant),
        "Amount": "12.30",
        "rate": "0.1234567890123456789012345678901234567890123456",
        "score": 0.1,
        "note": "",
        "is_test": True,
        "details": {"a": [1, "é"]},
        "secret": "\\x00ff",
        "created_at": "2026-01-02T03:04:05.000006+00:00",
        "day": "2024-02-29",
        "at": "12:34:56.789001",
        "tags": ["x", "y,z"],
    }
    return {**row, **changed}


def event(
    type_: str, merchant: str, id_: int, version: int, *, deleted: bool = False, **changed: Any
) -> Event:
    """One event; its schema is the one the tables are stored with."""
    row = msgspec.Raw(msgspec.json.encode(image(id_, merchant, **changed)))
    nothing = msgspec.Raw(b"null")
    return Event(
        e=1,
        op="d" if deleted else "u",
        src="shop",
        table=f"public.{type_}s",
        type=type_,
        key={"id": id_},
        merchant=merchant,
        ver=str(version),
        gen=1,
        ev=version,
        sub=0,
        txid=1,
        tick=1,
        ts_ms=0,
        pub_ms=0,
        schema=SHAPE[type_].shape if type_ in SHAPE else "0",
        before=row if deleted else nothing,
        after=nothing if deleted else row,
    )


def turn(events: Sequence[Event]) -> Turn:
    """These events as one claim of the lanes of their merchants."""
    by_merchant: dict[str, list[Event]] = {}
    for each in events:
        by_merchant.setdefault(each.merchant, []).append(each)
    lanes = [
        Lane(merchant, 0, range(len(found)), found, [msgspec.json.encode(each) for each in found])
        for merchant, found in by_merchant.items()
    ]
    return Turn("warehouse", 1, lanes)


class Deployment:
    """Settings and the parts of the warehouse built from them."""

    def __init__(self, variables: Mapping[str, str], directory: Path, control_url: str, schema: str) -> None:
        self.environ = {**variables, "CONTROL_DATABASE_URL": control_url, "SHOP_DATABASE_URL": control_url}
        self.directory = directory
        (directory / "pipeline.toml").write_text(_toml(schema))
        self.settings: Settings = settings.load(self.environ, directory)
        self.database = ControlDatabase(control_url)
        control.migrate(self.database)
        tables.store(self.database, "shop", list(SHAPE.values()))
        self.bucket = Bucket(self.settings.environment.s3_bucket)
        self.made = ensure_tables(self.settings, SHAPE.values())

    @property
    def schema(self) -> str:
        """Where its tables lie in Redshift."""
        return self.settings.warehouse_schema

    @property
    def target(self) -> Target:
        """Where its loads go."""
        url = self.settings.environment.redshift_url.get_secret_value()
        return Target(url, self.schema, self.settings.copy_role)

    def stage(self, *events: Event) -> Turn:
        """Stage events as one turn."""
        staged = turn(events)
        Stager(self.settings.deployment, self.database, self.bucket)(staged)
        return staged

    def loader(self) -> Loader:
        """A loader of its own."""
        return Loader(self.settings, self.bucket)

    def rows(self, type_: str) -> dict[tuple[str, str], StoredRow]:
        """All of a type by sink key."""
        return {(row.merchant, row.key): row for row in scan(self.settings, self.database, type_)}

    def warehouse(self) -> AbstractContextManager[Session]:
        """A session that commits every statement."""
        return session(self.settings.environment.redshift_url.get_secret_value(), autocommit=True)

    def query(self, statement: str) -> list[list[Any]]:
        """Rows of a query in Redshift."""
        with self.warehouse() as warehouse:
            return warehouse.rows(statement)

    def ledger(self, type_: str) -> list[uuid.UUID]:
        """Batch ids in a type's ledger."""
        return [
            uuid.UUID(row[0]) for row in self.query(f'SELECT batch_id FROM "{self.schema}"."_ledger_{type_}"')
        ]

    def process_environment(self, failpoint: str) -> dict[str, str]:
        """For a process of this deployment that dies at a failpoint."""
        return {
            **os.environ,
            **self.environ,
            "PIPELINE_CONFIG": str(self.directory / "pipeline.toml"),
            "PIPELINE_FAILPOINTS": failpoint,
        }

    def close(self) -> None:
        """Close connections."""
        self.database.close()


def stage_one() -> None:
    """In a process of its own: the consumer's task stages one event."""
    stage(turn([event("payment", "6", 1, 10)]))


def _toml(schema: str) -> str:
    sections = "".join(
        f'[sources.shop.tables."public.{type_}s"]\nmerchant = {{ column = "merchant_id" }}\ntype = "{type_}"\n'
        for type_ in TYPES
    )
    role = "arn:aws:iam::123456789012:role/pipeline-copy"
    consumer = '[consumers.warehouse]\nhandler = "tasks.warehouse:stage"\n'
    warehouse = f'[warehouse]\nload_after = "0s"\niam_role = "{role}"\n'
    return f'[deployment]\nname = "{schema}"\n{consumer}{warehouse}{sections}'
