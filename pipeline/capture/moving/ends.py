"""The two sources of a move, each with a session, and the tables that both have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.capture.session import Connection, session
from pipeline.domain.table import Table


@dataclass(frozen=True, slots=True)
class End:
    """One source: its name, a session in autocommit, and its captured tables that belong to merchants, by type."""

    name: str
    connection: Connection
    tables: Mapping[str, Table]


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a merchant leaves, and where it arrives."""

    source: End
    target: End


@contextmanager
def opened(source: tuple[str, str], target: tuple[str, str], captured: Sequence[Table]) -> Iterator[Ends]:
    """Sessions on both; each end is given as its name and its URL."""
    with session(source[1]) as leaving, session(target[1]) as arriving:
        yield Ends(
            End(source[0], leaving, _owned(captured, source[0])),
            End(target[0], arriving, _owned(captured, target[0])),
        )


def _owned(captured: Sequence[Table], source: str) -> Mapping[str, Table]:
    return {table.type: table for table in captured if table.source == source and table.owned}
