"""The hint to load: an ordinary task on the queue ``loads``; lost or doubled, it does no harm."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import structlog
from celery import shared_task

from pipeline import settings

if TYPE_CHECKING:
    from pipeline.warehouse.loader import Loader


@shared_task(name="loads", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def load() -> None:
    """Load every type whose parts are due, then delete the objects of parts loaded long ago."""
    loader = _loader()
    for report in loader.load_due():
        structlog.get_logger().info("load", **report.facts())
    loader.expire()


@cache
def _loader() -> Loader:
    # Loaded with the first hint: every Celery process imports this module.
    from pipeline.storage import Bucket
    from pipeline.warehouse.loader import Loader

    known = settings.load()
    return Loader(known, Bucket(known.environment.s3_bucket))
