"""What is to be done with one statement."""

from __future__ import annotations

from dataclasses import dataclass

from devstack.redshift.tokens import Name


@dataclass(frozen=True, slots=True)
class Forward:
    """PostgreSQL runs it. `locks` are the tables it writes; `shared`: a pure insert, whose lock is shared."""

    verb: str
    sql: str
    locks: tuple[Name, ...] = ()
    shared: bool = False


@dataclass(frozen=True, slots=True)
class CopyFromS3:
    """COPY of a manifest's CSV files."""

    table: Name
    columns: tuple[str, ...]  # empty: all columns of the table
    manifest: str
    null: str
    zstd: bool
    round_decimals: bool
    any_timestamp: bool  # TIMEFORMAT 'auto'
    verb: str = "COPY"


@dataclass(frozen=True, slots=True)
class Truncate:
    """Empties the table and commits whatever transaction is open, as Redshift does."""

    table: Name
    verb: str = "TRUNCATE"


@dataclass(frozen=True, slots=True)
class ReplaceView:
    """CREATE OR REPLACE VIEW, which may not change the view's columns."""

    view: Name
    sql: str
    verb: str = "CREATE VIEW"


@dataclass(frozen=True, slots=True)
class Ignored:
    """Accepted and without effect here; `alone`: refused inside a transaction."""

    verb: str
    alone: bool = False


Emulated = CopyFromS3 | Truncate | ReplaceView | Ignored
Plan = Forward | Emulated
