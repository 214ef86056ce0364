"""The plan of the traffic: an endless, pure function of a seed. No clock, no network, no database.

The same seed, merchants and start give the same transactions. A plan assumes that each of its transactions takes effect
before the next begins, and that nobody else writes the rows it knows. Exempt are transactions with `hold`: they may
stay open beside later ones, for which purpose the plan never touches their rows again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TypeAlias, TypeVar

from .operations import (
    Insert,
    Operation,
    Probe,
    Release,
    RollbackTo,
    Savepoint,
    Transaction,
    Update,
    Upsert,
    Write,
)
from .stock import Known, Place, Stock
from .tables import SOURCES, gateway_of, weight
from .writes import Keys, Moment, Writes

_HOLD_SECONDS = (0.5, 3.0)
_SHARES = {"funding": 0.1, "apply": 0.06}

_T = TypeVar("_T")
_Shape: TypeAlias = Callable[[str, Moment], Transaction]
_Write: TypeAlias = Callable[[str, int, Moment], list[Write]]


@dataclass(frozen=True, slots=True)
class Mix:
    """How often what happens, in relative numbers: kinds of row change, and shapes of transaction."""

    insert: float = 70
    update: float = 25
    delete: float = 5
    single: float = 42
    several: float = 22
    bulk: float = 20
    savepoint: float = 6
    rollback: float = 4
    upsert: float = 3
    reborn: float = 1
    rekey: float = 0.7
    remerchant: float = 0.7
    held: float = 0.3


@dataclass(frozen=True, slots=True)
class Start:
    """What a plan starts from.

    `known`: rows that exist already. `first` and `step`: the first free number of each table's key, and the distance
    to the next one. `at`: the moment of the first transaction. `probe_every`: one in that many transactions names a
    row to look for, 0 = none.
    """

    known: tuple[Known, ...] = ()
    first: Mapping[Place, int] = field(default_factory=dict)
    step: int = 1
    at: datetime = datetime(2025, 1, 1, tzinfo=UTC)
    probe_every: int = 0


def plan(
    seed: int | str, merchants: Sequence[int], start: Start | None = None, mix: Mix | None = None
) -> Iterator[Transaction]:
    """Endless transactions of these merchants, each larger the lower its id."""
    planner = _Planner(Random(str(seed)), merchants, start or Start(), mix or Mix())
    while True:
        yield planner.next()


class _Planner:
    def __init__(self, rng: Random, merchants: Sequence[int], start: Start, mix: Mix) -> None:
        self._rng = rng
        self._stock = Stock(start.known)
        self._at = start.at
        self._probe_every = start.probe_every
        self._since_probe = 0
        by_source = _by_source(merchants)
        self._sources = {source: _share(source, ids) for source, ids in by_source.items() if ids}
        self._writes = Writes(rng, self._stock, by_source, Keys(rng, start.first, start.step))
        self._kinds = {
            self._writes.insert: mix.insert,
            self._writes.update: mix.update,
            self._writes.delete: mix.delete,
        }
        self._shapes: dict[_Shape, float] = {
            self._single: mix.single,
            self._several: mix.several,
            self._bulk: mix.bulk,
            self._savepoint: mix.savepoint,
            self._rollback: mix.rollback,
            self._held: mix.held,
            self._special(self._writes.upsert): mix.upsert,
            self._special(self._writes.reborn): mix.reborn,
            self._special(self._writes.rekey): mix.rekey,
            self._special(self._writes.remerchant): mix.remerchant,
        }

    def next(self) -> Transaction:
        self._at += timedelta(microseconds=self._rng.randrange(200, 5_000))
        moment = Moment(self._at, f"req_{self._rng.getrandbits(64):016x}")
        self._writes.touched.clear()
        transaction = self._draw(self._shapes)(self._draw(self._sources), moment)
        if not transaction.commits:
            self._stock.undo()
        self._stock.settle(self._rng)
        self._retire_held(transaction)
        return self._with_probe(transaction, moment)

    def _draw(self, weighted: Mapping[_T, float]) -> _T:
        return self._rng.choices(list(weighted), list(weighted.values()))[0]

    def _single(self, source: str, moment: Moment) -> Transaction:
        return Transaction(source, self._write(source, 1, moment))

    def _several(self, source: str, moment: Moment) -> Transaction:
        return Transaction(source, self._writes_of(source, moment), repeatable_read=self._rng.random() < 0.1)

    def _bulk(self, source: str, moment: Moment) -> Transaction:
        return Transaction(source, self._write(source, self._many(), moment))

    def _rollback(self, source: str, moment: Moment) -> Transaction:
        return Transaction(source, self._writes_of(source, moment), commits=False)

    def _held(self, source: str, moment: Moment) -> Transaction:
        hold = self._rng.uniform(*_HOLD_SECONDS)
        repeatable_read = self._rng.random() < 0.5
        return Transaction(source, self._writes_of(source, moment), True, hold, repeatable_read)

    def _savepoint(self, source: str, moment: Moment) -> Transaction:
        before = self._write(source, self._few(), moment)
        inside = self._guarded(source, ("outer", "inner"), moment)
        return Transaction(source, (*before, *inside, *self._write(source, 1, moment)))

    def _guarded(self, source: str, names: tuple[str, ...], moment: Moment) -> tuple[Operation, ...]:
        """Writes behind a savepoint, around those behind the next one; each savepoint is released or rolled back to."""
        if not names:
            return ()
        mark = self._stock.mark()
        inside = self._write(source, self._few(), moment)
        deeper = self._guarded(source, names[1:], moment) if self._rng.random() < 0.3 else ()
        end: Operation = Release(names[0])
        if self._rng.random() < 0.6:
            self._stock.undo(mark)
            end = RollbackTo(names[0])
        return (Savepoint(names[0]), *inside, *deeper, end)

    def _special(self, write: _Write) -> _Shape:
        def shape(source: str, moment: Moment) -> Transaction:
            writes = write(source, self._few(), moment) or self._writes.insert(source, 1, moment)
            return Transaction(source, tuple(writes))

        return shape

    def _writes_of(self, source: str, moment: Moment) -> tuple[Operation, ...]:
        """Two to six statements on several tables and merchants."""
        statements = self._rng.randint(2, 6)
        return tuple(write for _ in range(statements) for write in self._write(source, self._few(), moment))

    def _write(self, source: str, count: int, moment: Moment) -> tuple[Operation, ...]:
        """One statement of up to `count` rows; an insert where there is nothing to update or delete."""
        return tuple(
            self._draw(self._kinds)(source, count, moment) or self._writes.insert(source, count, moment)
        )

    def _few(self) -> int:
        return self._rng.choice((1, 1, 1, 2, 3))

    def _many(self) -> int:
        return min(50, 2 + int(self._rng.expovariate(1 / 14)))

    def _retire_held(self, transaction: Transaction) -> None:
        if transaction.hold:
            for row in self._writes.touched:
                self._stock.retire(row)

    def _with_probe(self, transaction: Transaction, moment: Moment) -> Transaction:
        self._since_probe += 1
        if not self._probe_every or self._since_probe < self._probe_every or not _ends_with_rows(transaction):
            return transaction
        row = self._writes.touched[-1]
        if not (transaction.hold or self._stock.spare(row)):
            return transaction
        self._since_probe = 0
        self._stock.retire(row)
        return replace(transaction, probe=Probe(row.table, row.merchant, row.key, moment.request))


def _ends_with_rows(transaction: Transaction) -> bool:
    return transaction.commits and isinstance(transaction.operations[-1], Insert | Upsert | Update)


def _by_source(merchants: Sequence[int]) -> dict[str, list[int]]:
    return {
        source: [merchant for merchant in merchants if source in (gateway_of(merchant), "funding", "apply")]
        for source in SOURCES
    }


def _share(source: str, merchants: Sequence[int]) -> float:
    return sum(map(weight, merchants)) * _SHARES.get(source, 1.0)
