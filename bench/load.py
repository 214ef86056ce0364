"""The rows of a bench: 70 % inserts, 25 % updates, 5 % deletes, of 1,000 merchants by Zipf's law, the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Literal, TypeVar

import psycopg

MERCHANTS = 1000
INSERTS, UPDATES = 0.70, 0.25
TRANSACTION = 100  # changes that are committed together
SCHEMA = """
CREATE TABLE payments (
    id bigint PRIMARY KEY, merchant_id integer NOT NULL, seq bigint NOT NULL, request_id text NOT NULL,
    amount numeric(18,2) NOT NULL, currency text NOT NULL, status text NOT NULL, card text NOT NULL,
    customer text NOT NULL, email text NOT NULL, description text NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz
)
"""
IMAGE = "row_to_json(payments)::text"
_STATUSES = ("authorized", "captured", "settled", "failed")
_WORDS = (
    "order",
    "invoice",
    "renewal",
    "ticket",
    "deposit",
    "parcel",
    "subscription",
    "voucher",
    "balance",
    "fee",
)
_DESCRIPTION = 99  # characters: makes the row's JSON image 392 bytes long on average

Operation = Literal["insert", "update", "delete"]
Value = str | int
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """One row change. `seq` numbers all changes; `values` are the columns to write, by name, empty for a delete."""

    operation: Operation
    seq: int
    id: int
    merchant: int
    values: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a sink that has everything shows: living rows, and the sum of their `seq`. No late change can hide in both."""

    rows: int
    sum: int


@dataclass(slots=True)
class _Living:
    id: int
    merchant: int
    seq: int


class Changes:
    """A history of changes that fit each other; `first` is the first id and the first number."""

    def __init__(self, seed: int, first: int = 1) -> None:
        self._random = random.Random(seed)
        self._next = first
        self._living: list[_Living] = []
        self._kept = 0
        self._sum = 0
        self._weights = list(accumulate(1 / rank for rank in range(1, MERCHANTS + 1)))

    @property
    def expected(self) -> Expected:
        """The table as it is after everything taken so far."""
        return Expected(len(self._living) + self._kept, self._sum)

    @property
    def last(self) -> int:
        """The number of the newest change."""
        return self._next - 1

    def take(self, count: int) -> Iterator[Change]:
        """The next `count` changes; the last one is an insert, so that a search can look for it."""
        for _ in range(count - 1):
            yield self._any()
        yield self.insert()

    def insert(self, *, untouched: bool = False) -> Change:
        """A new row; `untouched`: no later change will touch it, so that whoever waits for it can see it."""
        merchant = self._random.choices(range(1, MERCHANTS + 1), cum_weights=self._weights)[0]
        seq = self._number()
        if untouched:
            self._kept += 1
        else:
            self._living.append(_Living(seq, merchant, seq))
        self._sum += seq
        values = {"id": seq, "merchant_id": merchant, "seq": seq, **self._columns(seq)}
        return Change("insert", seq, seq, merchant, values)

    def _any(self) -> Change:
        dice = self._random.random()
        if dice < INSERTS or not self._living:
            return self.insert()
        place = self._random.randrange(len(self._living))
        return self._update(self._living[place]) if dice < INSERTS + UPDATES else self._delete(place)

    def _update(self, row: _Living) -> Change:
        seq = self._number()
        self._sum += seq - row.seq
        row.seq = seq
        status = self._random.choice(_STATUSES)
        return Change("update", seq, row.id, row.merchant, {"seq": seq, "status": status})

    def _delete(self, place: int) -> Change:
        row, last = self._living[place], self._living.pop()
        if last is not row:
            self._living[place] = last
        self._sum -= row.seq
        return Change("delete", self._number(), row.id, row.merchant, {})

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _columns(self, seq: int) -> dict[str, Value]:
        dice = self._random
        words = " ".join(dice.choices(_WORDS, k=_DESCRIPTION // 4))
        return {
            "request_id": f"r{seq:011d}",
            "amount": f"{dice.randrange(100, 500_000) / 100:.2f}",
            "currency": dice.choice(("EUR", "USD", "GBP")),
            "status": "authorized",
            "card": f"4{dice.randrange(10**14):014d}"[-4:],
            "customer": f"customer {dice.randrange(50_000)}",
            "email": f"customer{dice.randrange(50_000)}@shop.example",
            "description": words[:_DESCRIPTION],
        }


_INSERT = (
    "INSERT INTO payments (id, merchant_id, seq, request_id, amount, currency, status, card, customer, email, description,"
    " created_at) VALUES (%(id)s, %(merchant_id)s, %(seq)s, %(request_id)s, %(amount)s::numeric, %(currency)s, %(status)s,"
    " %(card)s, %(customer)s, %(email)s, %(description)s, now())"
)
_UPDATE = "UPDATE payments SET seq = %(seq)s, status = %(status)s, updated_at = now() WHERE id = %(id)s"
_DELETE = "DELETE FROM payments WHERE id = %(id)s"
_STATEMENTS = {"insert": _INSERT, "update": _UPDATE, "delete": _DELETE}


def perform(session: psycopg.Connection, changes: Sequence[Change]) -> None:
    """One transaction, one round trip: returns when COMMIT has answered."""
    with session.pipeline():
        for change in changes:
            session.execute(_STATEMENTS[change.operation], {"id": change.id, **change.values}, prepare=True)
    session.commit()


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of up to `size`."""
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk
