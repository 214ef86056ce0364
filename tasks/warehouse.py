"""The warehouse consumer: ``handler = "tasks.warehouse:stage"``. What it needs is loaded with its first turn: see ``tasks.search``."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pipeline import settings
from pipeline.consumer import SweepOrder, Turn
from pipeline.control.database import ControlDatabase

if TYPE_CHECKING:
    from pipeline.warehouse.stager import Stager
    from pipeline.warehouse.sweep import WarehouseSweep


def stage(turn: Turn) -> None:
    """Stage a turn's events as parts in S3."""
    _stager()(turn)


@cache
def _stager() -> Stager:
    """One per process, made at its first turn: clients do not survive a fork."""
    from pipeline.storage import Bucket
    from pipeline.warehouse.stager import Stager

    known = settings.load()
    database = ControlDatabase(known.environment.control_database_url.get_secret_value())
    return Stager(known.deployment, database, Bucket(known.environment.s3_bucket))


def sweep(order: SweepOrder) -> int:
    """Make tombstones of what the order removes; returns how many."""
    return _sweep()(order)


@cache
def _sweep() -> WarehouseSweep:
    from pipeline.warehouse.sweep import WarehouseSweep

    known = settings.load()
    return WarehouseSweep(known, ControlDatabase(known.environment.control_database_url.get_secret_value()))
