"""Writes that fit the rows known to exist: each method returns its statements, or none where no row qualifies.

Pure but for the random source and the stock, both of which belong to one plan.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from random import Random
from uuid import UUID

from . import words
from .operations import Delete, Insert, Update, Upsert, Write
from .rows import Origin, new_row
from .stock import Known, Place, Stock
from .tables import TABLES, TABLES_OF, Json, Key, Row, weight

_INSERTS: Mapping[str, float] = {
    "customers": 15, "transactions": 70, "refunds": 9, "disputes": 6, "bank_accounts": 1, "payouts": 5, "applications": 1,
}  # fmt: skip
_UPDATES: Mapping[str, float] = {**_INSERTS, "merchants": 4}
_EDITS: Mapping[str, Mapping[str, Callable[[Random], Json]]] = {
    "merchants": {"trading_name": words.text, "monthly_limit": words.money, "email": words.email},
    "customers": {"notes": words.text, "address": words.address, "metadata": words.metadata, "email": words.email},
    "transactions": {"description": words.text, "amount": words.money, "fee": words.fee, "metadata": words.metadata,
                     "risk_score": words.score},
    "refunds": {"reason": words.text, "amount": words.money, "metadata": words.metadata},
    "disputes": {"comment": words.text, "evidence": words.metadata, "amount": words.money},
    "bank_accounts": {"holder": words.name, "bank": words.text},
    "payouts": {"statement_text": words.text, "net": words.money, "fees": words.fee},
    "applications": {"comment": words.text, "answers": words.metadata, "credit_score": words.score},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moment:
    """When a transaction happens, and the request that makes it."""

    at: datetime
    request: str


class Writes:
    """Makes writes for a set of merchants; remembers in `touched` the rows of the present transaction, newest last."""

    def __init__(
        self, rng: Random, stock: Stock, merchants: Mapping[str, Sequence[int]], keys: "Keys"
    ) -> None:
        self._rng = rng
        self._stock = stock
        self._keys = keys
        self._merchants = {source: ids for source, ids in merchants.items() if ids}
        self._shares = {source: list(accumulate(map(weight, ids))) for source, ids in self._merchants.items()}
        self.touched: list[Known] = []

    def insert(self, source: str, count: int, moment: Moment) -> list[Write]:
        """One statement that inserts `count` rows, of several merchants, into one table; always possible."""
        table = self._pick(source, _INSERTS)
        rows = [self._insert_row((source, table), moment) for _ in range(count)]
        if None in rows:
            rows = [self._insert_row((source, "transactions"), moment) for _ in range(count)]
        return [Insert(self.touched[-1].table, tuple(row for row in rows if row is not None))]

    def update(self, source: str, count: int, moment: Moment) -> list[Write]:
        """One statement that takes up to `count` rows a step further in their life, or edits one column of them."""
        wide = count if count == 1 else count * 4
        rows = self._stock.draw(self._rng, (source, self._pick(source, _UPDATES)), wide)
        if not rows:
            return []
        same = [row for row in rows if row.status == rows[0].status][:count]
        return [self._set(same, self._step(rows[0], moment))]

    def delete(self, source: str, count: int, moment: Moment) -> list[Write]:
        """One statement that deletes up to `count` rows, but of no merchant the last one."""
        del moment
        rows = self._stock.draw(self._rng, (source, self._pick(source, _INSERTS)), count)
        deleted, refunds = [], 0
        for row in filter(self._stock.spare, rows):
            refunds += len(self._stock.refunds_of(row))
            self._stock.remove(row)
            self.touched.append(row)
            deleted.append(row)
        return [Delete(deleted[0].table, tuple(row.key for row in deleted), refunds)] if deleted else []

    def upsert(self, source: str, count: int, moment: Moment) -> list[Write]:
        """One INSERT … ON CONFLICT DO UPDATE of `count` new rows and up to as many known ones."""
        table = self._pick(source, _UPDATES)
        known = self._stock.draw(self._rng, (source, table), count)
        fresh = [] if table in ("merchants", "refunds") else [(source, table)] * count
        rows = [row for place in fresh if (row := self._insert_row(place, moment)) is not None]
        rows += [self._overwrite(row, moment) for row in known]
        return [Upsert(table, tuple(rows), len(fresh))] if rows else []

    def reborn(self, source: str, count: int, moment: Moment) -> list[Write]:
        """Deletes one row and inserts another one with the same key."""
        del count
        found = self._stock.draw(self._rng, (source, self._pick(source, _UPDATES)))
        if not found or self._stock.refunds_of(found[0]):
            return []
        old = found[0]
        row = self._new(old, moment)
        self._become(old, replace(old, status=TABLES[old.table].begins))
        return [Delete(old.table, (old.key,)), Insert(old.table, (row,))]

    def rekey(self, source: str, count: int, moment: Moment) -> list[Write]:
        """Changes the primary key of one row to one that was never used."""
        del count
        return self._move(source, moment, lambda row: row.merchant)

    def remerchant(self, source: str, count: int, moment: Moment) -> list[Write]:
        """Gives one row to another merchant; its key changes too where the merchant is part of it."""
        del count
        return self._move(source, moment, lambda row: self._merchant(source))

    def _move(self, source: str, moment: Moment, to: Callable[[Known], int]) -> list[Write]:
        table = self._pick(source, _INSERTS)
        found = self._stock.draw(self._rng, (source, table)) if table != "refunds" else []
        if not found or self._stock.refunds_of(found[0]) or not self._stock.spare(found[0]):
            return []
        old, merchant = found[0], to(found[0])
        keeps_key = merchant != old.merchant and "merchant_id" not in TABLES[table].key
        key = old.key if keeps_key else self._keys.fresh(old.place, merchant)
        columns = dict(zip(TABLES[table].key, key, strict=True)) | {"merchant_id": merchant}
        self._become(old, replace(old, key=key, merchant=merchant))
        return [Update(table, (old.key,), columns | _signed(moment))]

    def _insert_row(self, place: Place, moment: Moment) -> Row | None:
        """A new row; None for a refund where no payment is known."""
        row = self._newcomer(place)
        if row is None:
            return None
        self._stock.add(row)
        self.touched.append(row)
        return self._new(row, moment)

    def _newcomer(self, place: Place) -> Known | None:
        source, table = place
        begins = TABLES[table].begins
        if table == "refunds":
            payments = self._stock.draw(self._rng, (source, "transactions"))
            return self._refund(payments[0], begins) if payments else None
        if self._rng.random() < 0.02 and (gone := self._stock.deleted(self._rng, place)):
            return replace(gone, status=begins)
        merchant = self._merchant(source)
        return Known(source, table, self._keys.fresh(place, merchant), merchant, begins)

    def _refund(self, payment: Known, begins: str) -> Known:
        place = payment.source, "refunds"
        key = self._keys.fresh(place, payment.merchant)
        return Known(*place, key, payment.merchant, begins, payment.key[0])

    def _overwrite(self, row: Known, moment: Moment) -> Row:
        self.touched.append(row)
        return {**self._new(row, moment), "status": row.status, "updated_at": moment.at.isoformat()}

    def _new(self, row: Known, moment: Moment) -> dict[str, Json]:
        return new_row(
            row.table, self._rng, Origin(row.merchant, row.key, moment.at, moment.request, row.payment)
        )

    def _step(self, row: Known, moment: Moment) -> dict[str, Json]:
        life = TABLES[row.table].life
        following = life[row.status].then
        if not following or self._rng.random() < 0.2:
            column = self._rng.choice(list(_EDITS[row.table]))
            return _signed(moment) | {column: _EDITS[row.table][column](self._rng)}
        status = self._rng.choice(following)
        return _signed(moment) | {"status": status, life[status].stamp: moment.at.isoformat()}

    def _set(self, rows: Sequence[Known], columns: Row) -> Update:
        for row in rows:
            self._become(row, replace(row, status=str(columns.get("status", row.status))))
        return Update(rows[0].table, tuple(row.key for row in rows), columns)

    def _become(self, old: Known, new: Known) -> None:
        self._stock.replace(old, new)
        self.touched.append(new)

    def _merchant(self, source: str) -> int:
        return self._rng.choices(self._merchants[source], cum_weights=self._shares[source])[0]

    def _pick(self, source: str, weights: Mapping[str, float]) -> str:
        tables = [table for table in TABLES_OF[source] if table in weights]
        return self._rng.choices(tables, [weights[table] for table in tables])[0]


class Keys:
    """Keys that were never used: from `first` on in steps, so that several plans on one database stay apart."""

    def __init__(self, rng: Random, first: Mapping[Place, int], step: int) -> None:
        self._rng = rng
        self._next = dict(first)
        self._step = step

    def fresh(self, place: Place, merchant: int) -> Key:
        """A key for a new row of this merchant."""
        if place[1] == "applications":
            return (str(UUID(int=self._rng.getrandbits(128), version=4)),)
        number = self._next.get(place, 1)
        self._next[place] = number + self._step
        return (merchant, number) if place[1] == "disputes" else (number,)


def _signed(moment: Moment) -> dict[str, Json]:
    return {"request_id": moment.request, "updated_at": moment.at.isoformat()}
