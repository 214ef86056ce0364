"""Where a source's records go."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outlet:
    """The topics by what they carry, and the timeline of the server that the records come from.

    ``datastream``: changes and domain events; ``eventstream``: domain events again; ``snapshots``: the rows that
    snapshots read; ``progress``: how far the source is published.
    """

    source: str
    datastream: str
    eventstream: str
    snapshots: str
    progress: str
    timeline: int
