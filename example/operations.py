"""What traffic consists of: immutable transactions of immutable operations, each of which knows what it changes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .tables import Key, Row

Kind = Literal["insert", "update", "delete"]
Change: TypeAlias = tuple[str, Kind]
"""A table and what happened to one row of it."""


@dataclass(frozen=True, slots=True)
class Insert:
    """One statement that inserts all of these rows."""

    table: str
    rows: tuple[Row, ...]

    def changes(self) -> Iterator[Change]:
        """One change per row."""
        return ((self.table, "insert") for _ in self.rows)


@dataclass(frozen=True, slots=True)
class Upsert:
    """INSERT … ON CONFLICT DO UPDATE of all columns; the first `inserted` rows are new, the others exist."""

    table: str
    rows: tuple[Row, ...]
    inserted: int

    def changes(self) -> Iterator[Change]:
        """One change per row: an insert for a new one, an update for one that exists."""
        return ((self.table, "insert" if at < self.inserted else "update") for at, _ in enumerate(self.rows))


@dataclass(frozen=True, slots=True)
class Update:
    """One statement that sets the same columns of all of these rows; key and merchant may be among them."""

    table: str
    keys: tuple[Key, ...]
    columns: Row

    def changes(self) -> Iterator[Change]:
        """One change per row."""
        return ((self.table, "update") for _ in self.keys)


@dataclass(frozen=True, slots=True)
class Delete:
    """One statement that deletes these rows; `refunds` rows of the table refunds go with them by cascade."""

    table: str
    keys: tuple[Key, ...]
    refunds: int = 0

    def changes(self) -> Iterator[Change]:
        """One change per row, and one per refund that goes with it."""
        yield from ((self.table, "delete") for _ in self.keys)
        yield from (("refunds", "delete") for _ in range(self.refunds))


@dataclass(frozen=True, slots=True)
class Savepoint:
    """A savepoint."""

    name: str


@dataclass(frozen=True, slots=True)
class Release:
    """Keeps what came after the savepoint, and forgets it."""

    name: str


@dataclass(frozen=True, slots=True)
class RollbackTo:
    """Undoes what came after the savepoint."""

    name: str


Write: TypeAlias = Insert | Upsert | Update | Delete
Operation: TypeAlias = Write | Savepoint | Release | RollbackTo


@dataclass(frozen=True, slots=True)
class Probe:
    """A row that nothing touches after its transaction: visible as soon as `request_id` is what a reader sees there."""

    table: str
    merchant: int
    key: Key
    request_id: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """Operations on one database, committed or rolled back; `hold` seconds it stays open between two of them."""

    source: str
    operations: tuple[Operation, ...]
    commits: bool = True
    hold: float = 0.0
    repeatable_read: bool = False
    probe: Probe | None = None

    def events(self) -> Counter[Change]:
        """The row changes that remain when it is over."""
        if not self.commits:
            return Counter()
        return Counter(change for write in surviving(self.operations) for change in write.changes())


def surviving(operations: tuple[Operation, ...]) -> list[Write]:
    """The writes that no savepoint takes back."""
    kept: list[Write] = []
    savepoints: dict[str, int] = {}
    for operation in operations:
        match operation:
            case Savepoint(name):
                savepoints[name] = len(kept)
            case RollbackTo(name):
                del kept[savepoints[name] :]
            case Release(name):
                del savepoints[name]
            case _:
                kept.append(operation)
    return kept
