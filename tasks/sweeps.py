"""The hint to sweep: an ordinary task on the queue ``sweeps``; lost or doubled, it does no harm."""

from __future__ import annotations

from functools import cache

import structlog
from celery import shared_task

from pipeline import settings
from pipeline.sweeping import Sweeping


@shared_task(name="sweeps", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def sweep() -> None:
    """Run every sweep that is due, of every consumer that can sweep."""
    for report in _sweeping().run_due():
        log = structlog.get_logger()
        (log.error if report.status == "failed" else log.info)("sweep", **report.facts())


@cache
def _sweeping() -> Sweeping:
    return Sweeping(settings.load())
