"""Fills the databases with rows that exist before anything is captured: the same seed gives the same rows."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain
from random import Random
from uuid import UUID

import psycopg
from psycopg import sql

from .rows import Origin, new_row
from .tables import SOURCES, TABLES, TABLES_OF, Json, Key, gateway_of, weight

_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
_SHOWN_MERCHANT = 6


@dataclass(frozen=True, slots=True)
class Size:
    """How much to make: merchants 1..`merchants`, and rows of each table over all databases."""

    merchants: int = 100
    customers: int = 2_000
    transactions: int = 10_000
    refunds: int = 600
    disputes: int = 300
    bank_accounts: int = 150
    payouts: int = 1_000
    applications: int = 200

    def __post_init__(self) -> None:
        if self.merchants < _SHOWN_MERCHANT:
            raise ValueError(
                f"merchants must be at least {_SHOWN_MERCHANT}: merchant 6 is the one that is shown"
            )


def seed(urls: Mapping[str, str], size: Size | None = None, number: int = 1) -> Counter[tuple[str, str]]:
    """Copies rows into empty databases, Zipf-skewed over the merchants; returns their count by (source, table).

    `number` seeds the random source. Merchant 6 has rows of every type.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for source in SOURCES:
        company = _Company(Random(f"{number} {source}"), source, size or Size())
        with psycopg.connect(urls[source]) as session:
            for table in TABLES_OF[source]:
                counts[source, table] = _copy(session, table, company.rows(table))
                _advance_sequence(session, table)
        with psycopg.connect(urls[source], autocommit=True) as session:
            session.execute("vacuum analyze")
    return counts


class _Company:
    """The rows of one database."""

    def __init__(self, rng: Random, source: str, size: Size) -> None:
        self._rng = rng
        self._merchants = [
            m for m in range(1, size.merchants + 1) if source in (gateway_of(m), "funding", "apply")
        ]
        self._shares = list(accumulate(map(weight, self._merchants)))
        share = self._shares[-1] / sum(map(weight, range(1, size.merchants + 1)))
        self._counts = {table: round(getattr(size, table) * share) for table in TABLES_OF[source]}
        self._payers = self._owners("transactions") if "transactions" in self._counts else []

    def rows(self, table: str) -> Iterator[dict[str, Json]]:
        seqs: Counter[int] = Counter()
        for number, (merchant, payment) in enumerate(self._places(table), start=1):
            seqs[merchant] += 1
            key = self._key(table, number, merchant, seqs[merchant])
            at = _BEGIN + timedelta(seconds=number * 97 + self._rng.randrange(90))
            yield self._aged(table, Origin(merchant, key, at, f"seed_{number}", payment))

    def _places(self, table: str) -> Iterator[tuple[int, int | None]]:
        """The merchant of each row and, of a refund, the number of the payment it belongs to."""
        match table:
            case "merchants":
                yield from ((merchant, None) for merchant in self._merchants)
            case "transactions":
                yield from ((merchant, None) for merchant in self._payers)
            case "refunds":
                numbers = [1, *self._rng.choices(range(1, len(self._payers) + 1), k=self._counts[table])]
                yield from ((self._payers[number - 1], number) for number in numbers)
            case _:
                yield from ((merchant, None) for merchant in self._owners(table))

    def _owners(self, table: str) -> list[int]:
        drawn = self._rng.choices(self._merchants, cum_weights=self._shares, k=self._counts[table])
        return [_SHOWN_MERCHANT if _SHOWN_MERCHANT in self._merchants else self._merchants[0], *drawn]

    def _key(self, table: str, number: int, merchant: int, seq: int) -> Key:
        match table:
            case "merchants":
                return (merchant,)
            case "disputes":
                return (merchant, seq)
            case "applications":
                return (str(UUID(int=self._rng.getrandbits(128), version=4)),)
            case _:
                return (number,)

    def _aged(self, table: str, origin: Origin) -> dict[str, Json]:
        """The row some steps into its life."""
        row, at, life = new_row(table, self._rng, origin), origin.at, TABLES[table].life
        for _ in range(self._rng.randrange(5)):
            following = life[str(row["status"])].then
            if not following:
                break
            status, at = self._rng.choice(following), at + timedelta(minutes=self._rng.randrange(1, 3_000))
            row |= {"status": status, life[status].stamp: at.isoformat(), "updated_at": at.isoformat()}
        return row


def _copy(session: psycopg.Connection, table: str, rows: Iterator[dict[str, Json]]) -> int:
    first = next(rows)
    columns = sql.SQL(", ").join(map(sql.Identifier, first))
    count = 0
    with session.cursor().copy(
        sql.SQL("copy {} ({}) from stdin").format(sql.Identifier(table), columns)
    ) as copy:
        for row in chain([first], rows):
            copy.write_row(
                [json.dumps(value) if isinstance(value, dict) else value for value in row.values()]
            )
            count += 1
    return count


def _advance_sequence(session: psycopg.Connection, table: str) -> None:
    """Keys that the database hands out itself begin above the copied ones."""
    if TABLES[table].key == ("id",) and table != "applications":
        statement = sql.SQL("select setval(pg_get_serial_sequence({}, 'id'), (select max(id) from {}))")
        session.execute(statement.format(sql.Literal(table), sql.Identifier(table)))
