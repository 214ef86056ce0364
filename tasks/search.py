"""The search consumer: a turn becomes documents in Elasticsearch, a sweep tombstones.

Every Celery process imports every consumer's handler, so the sink's client is loaded with the first turn: a process of
another consumer starts without it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pipeline.consumer import SweepOrder, Turn
from pipeline.settings import load

if TYPE_CHECKING:
    from pipeline.search.sweep import SearchSweep
    from pipeline.search.writer import Writer


@cache
def _writer() -> Writer:
    # Made when the first turn comes, so in the worker's own process: connections and threads do not survive a fork.
    from pipeline.search.writer import open_writer

    return open_writer(load())


def index(turn: Turn) -> None:
    """Write one turn; every lane leaves with an outcome, or SinkUnavailableError says that none is to blame."""
    _writer().write(turn)


@cache
def _sweep() -> SearchSweep:
    from pipeline.search.sweep import open_sweep

    return open_sweep(load())


def sweep(order: SweepOrder) -> int:
    """Make tombstones of what the order removes; returns how many."""
    return _sweep()(order)
