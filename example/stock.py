"""The rows that traffic knows to exist: what it may update and delete without asking the database.

Every change is journaled until the transaction ends, so that a rollback, whole or to a savepoint, leaves no trace.
Bounded: beyond `limit` rows of a table some are forgotten, which means only that they are never touched again.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from .tables import Key

Place: TypeAlias = tuple[str, str]
"""A source and a table."""


@dataclass(frozen=True, slots=True)
class Known:
    """A row that exists. `payment` is the id of the transaction that a refund belongs to."""

    source: str
    table: str
    key: Key
    merchant: int
    status: str
    payment: int | str | None = None

    @property
    def place(self) -> Place:
        """Where it lies."""
        return self.source, self.table


@dataclass(slots=True)
class _Pool:
    """A set of rows from which one can be drawn at random, in constant time."""

    rows: list[Known] = field(default_factory=list)
    places: dict[Key, int] = field(default_factory=dict)
    per_merchant: Counter[int] = field(default_factory=Counter)

    def add(self, row: Known) -> None:
        self.places[row.key] = len(self.rows)
        self.rows.append(row)
        self.per_merchant[row.merchant] += 1

    def remove(self, row: Known) -> None:
        place = self.places.pop(row.key)
        last = self.rows.pop()
        if last.key != row.key:
            self.rows[place] = last
            self.places[last.key] = place
        self.per_merchant[row.merchant] -= 1


class Stock:
    """Known rows by place, the refunds of each known payment, and the keys of deleted rows."""

    def __init__(self, rows: Iterable[Known] = (), limit: int = 20_000) -> None:
        self._limit = limit
        self._pools: dict[Place, _Pool] = defaultdict(_Pool)
        self._refunds: dict[tuple[str, int | str], set[Key]] = {}
        self._deleted: dict[Place, list[Known]] = defaultdict(list)
        self._journal: list[Callable[[], None]] = []
        for row in rows:
            self._add(row)

    def draw(self, rng: Random, place: Place, count: int = 1) -> list[Known]:
        """Up to `count` different known rows, at random."""
        rows = self._pools[place].rows
        if count == 1:
            return [rng.choice(rows)] if rows else []
        return rng.sample(rows, min(len(rows), count))

    def rows(self) -> list[Known]:
        """All known rows."""
        return [row for pool in self._pools.values() for row in pool.rows]

    def refunds_of(self, row: Known) -> frozenset[Key]:
        """The keys of all refunds of a transaction; empty for a row of any other table."""
        if row.table != "transactions":
            return frozenset()
        return frozenset(self._refunds.get((row.source, row.key[0]), ()))

    def spare(self, row: Known) -> bool:
        """Whether its merchant keeps known rows of that table, and refunds, when this row goes."""
        refunds = len(self.refunds_of(row))
        kept = self._pools[row.source, "refunds"].per_merchant[row.merchant] - refunds
        return self._pools[row.place].per_merchant[row.merchant] > 1 and (refunds == 0 or kept > 0)

    def deleted(self, rng: Random, place: Place) -> Known | None:
        """A row that was deleted and whose key may come again; each is handed out once."""
        rows = self._deleted[place]
        if not rows:
            return None
        row = rows.pop(rng.randrange(len(rows)))
        self._journal.append(lambda: rows.append(row))
        return row

    def add(self, row: Known) -> None:
        """The row was inserted."""
        self._add(row)
        self._journal.append(lambda: self._take(row))

    def replace(self, old: Known, new: Known) -> None:
        """The row was updated, or deleted and inserted again; its key or merchant may differ."""
        self._take(old)
        self._add(new)
        self._journal.append(lambda: self._swap(new, old))

    def remove(self, row: Known) -> None:
        """The row was deleted, and with it, if it is a transaction, its refunds."""
        gone = [row, *self._known_refunds(row)]
        payment = (row.source, row.key[0])
        refunds = self._refunds.pop(payment, None) if row.table == "transactions" else None
        for each in gone:
            self._pools[each.place].remove(each)
        if row.payment is not None:
            self._unlink(row, row.payment)
        deleted = self._deleted[row.place]
        deleted.append(row)

        def undo() -> None:
            deleted.remove(row)
            for each in gone:
                self._add(each)
            if refunds is not None:
                self._refunds[payment] = refunds

        self._journal.append(undo)

    def mark(self) -> int:
        """The present moment, for `undo`."""
        return len(self._journal)

    def undo(self, mark: int = 0) -> None:
        """Takes back everything since `mark`."""
        while len(self._journal) > mark:
            self._journal.pop()()

    def settle(self, rng: Random) -> None:
        """The transaction is over: nothing can be undone any more, and tables beyond the limit forget rows."""
        self._journal.clear()
        for pool in self._pools.values():
            while len(pool.rows) > self._limit:
                self.retire(rng.choice(pool.rows))
        for rows in self._deleted.values():
            del rows[: max(0, len(rows) - self._limit)]

    def get(self, place: Place, key: Key) -> Known | None:
        """The known row with this key."""
        pool = self._pools[place]
        return pool.rows[pool.places[key]] if key in pool.places else None

    def retire(self, row: Known) -> None:
        """Never draw this row again, nor its key if it was deleted; only after `settle`.

        With a refund goes its payment, whose end would be its own.
        """
        if known := self.get(row.place, row.key):
            self._pools[row.place].remove(known)
        elif row in self._deleted[row.place]:
            self._deleted[row.place].remove(row)
        if row.table == "transactions":
            self._refunds.pop((row.source, row.key[0]), None)
        elif row.payment is not None and (payment := self.get((row.source, "transactions"), (row.payment,))):
            self.retire(payment)

    def _add(self, row: Known) -> None:
        self._pools[row.place].add(row)
        if row.payment is not None:
            self._refunds.setdefault((row.source, row.payment), set()).add(row.key)

    def _take(self, row: Known) -> None:
        self._pools[row.place].remove(row)
        if row.payment is not None:
            self._unlink(row, row.payment)

    def _swap(self, new: Known, old: Known) -> None:
        self._take(new)
        self._add(old)

    def _unlink(self, refund: Known, payment: int | str) -> None:
        siblings = self._refunds.get((refund.source, payment), set())
        siblings.discard(refund.key)
        if not siblings:
            self._refunds.pop((refund.source, payment), None)

    def _known_refunds(self, row: Known) -> list[Known]:
        refunds = (self.get((row.source, "refunds"), key) for key in self.refunds_of(row))
        return [refund for refund in refunds if refund is not None]
