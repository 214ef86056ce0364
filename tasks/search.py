"""The search consumer: a turn becomes documents in Elasticsearch, a sweep tombstones."""

from __future__ import annotations

from functools import cache

from pipeline.consumer import SweepOrder, Turn
from pipeline.search.sweep import SearchSweep, open_sweep
from pipeline.search.writer import Writer, open_writer
from pipeline.settings import load


@cache
def _writer() -> Writer:
    # Made when the first turn comes, so in the worker's own process: connections and threads do not survive a fork.
    return open_writer(load())


def index(turn: Turn) -> None:
    """Write one turn; every lane leaves with an outcome, or SinkUnavailableError says that none is to blame."""
    _writer().write(turn)


@cache
def _sweep() -> SearchSweep:
    return open_sweep(load())


def sweep(order: SweepOrder) -> int:
    """Make tombstones of what the order removes; returns how many."""
    return _sweep()(order)
