"""What traffic reads before it begins: the newest rows of its merchants, and the first keys that nobody has used."""

from collections.abc import Iterator, Mapping, Sequence

import psycopg
from psycopg import sql

from .stock import Known, Place
from .tables import TABLES, TABLES_OF, gateway_of

_RESERVED = 100_000_000
"""Numbers put aside for one run, so that rows inserted by others meanwhile get keys above them."""


def reserve_keys(session: psycopg.Connection, source: str) -> dict[Place, int]:
    """The first number of a range per table that belongs to the caller from now on; one range for all of its plans."""
    first: dict[Place, int] = {}
    for table in TABLES_OF[source]:
        if table == "disputes":
            first[source, table] = _one(session, sql.SQL("select coalesce(max(seq), 0) + 1 from disputes"))
        elif TABLES[table].key == ("id",) and table != "applications":
            first[source, table] = _reserve(session, table)
    return first


def _reserve(session: psycopg.Connection, table: str) -> int:
    sequence = sql.SQL("pg_get_serial_sequence({}, 'id')").format(sql.Literal(table))
    first = _one(session, sql.SQL("select nextval({})").format(sequence))
    session.execute(sql.SQL("select setval({}, %s)").format(sequence), [first + _RESERVED])
    return first


def _one(session: psycopg.Connection, query: sql.SQL | sql.Composed) -> int:
    row = session.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def known_rows(
    session: psycopg.Connection, source: str, merchants: Sequence[int], limit: int
) -> Iterator[Known]:
    """Up to `limit` rows of each table, the newest first, and of the payments among them all refunds."""
    own = [merchant for merchant in merchants if source in (gateway_of(merchant), "funding", "apply")]
    for table in TABLES_OF[source]:
        if table != "refunds":
            yield from _newest(session, (source, table), own, limit)


def _newest(session: psycopg.Connection, place: Place, merchants: list[int], limit: int) -> Iterator[Known]:
    source, table = place
    key = sql.SQL(", ").join(map(sql.Identifier, TABLES[table].key))
    newest = sql.SQL(
        "select merchant_id, status, {0} from {1} where merchant_id = any(%s) order by {0} desc limit %s"
    )
    found = [
        Known(source, table, tuple(map(_plain, values)), merchant, status)
        for merchant, status, *values in session.execute(
            newest.format(key, sql.Identifier(table)), [merchants, limit]
        )
    ]
    yield from found
    if table == "transactions":
        yield from _refunds(session, source, [row.key[0] for row in found])


def _refunds(session: psycopg.Connection, source: str, payments: list[int | str]) -> Iterator[Known]:
    query = "select id, merchant_id, status, transaction_id from refunds where transaction_id = any(%s)"
    for key, merchant, status, payment in session.execute(query, [payments]):
        yield Known(source, "refunds", (key,), merchant, status, payment)


def _plain(value: object) -> int | str:
    return value if isinstance(value, int) else str(value)


def merge(parts: Sequence[Mapping[Place, int]]) -> dict[Place, int]:
    """One mapping of all."""
    return {place: number for part in parts for place, number in part.items()}
