"""The plan of the example's traffic against a model of the tables that knows nothing of how it was made."""

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from example.operations import (
    Change,
    Delete,
    Insert,
    Operation,
    Release,
    RollbackTo,
    Savepoint,
    Transaction,
    Update,
    Upsert,
)
from example.plan import Mix, Start, plan
from example.tables import TABLES, Key, Row, gateway_of, key_of

Model = dict[tuple[str, Key], Row]
"""What a database holds: rows by table and key."""

seeds = st.integers(0, 2**32)


class Database:
    """The rows of one source; every operation checks what the real one would have to find."""

    def __init__(self) -> None:
        self.rows: Model = {}

    def perform(self, transaction: Transaction) -> list[Change]:
        """Applies it, and returns the row changes that remain."""
        before, savepoints = dict(self.rows), dict[str, tuple[Model, int]]()
        changes: list[Change] = []
        for operation in transaction.operations:
            match operation:
                case Savepoint(name):
                    savepoints[name] = dict(self.rows), len(changes)
                case Release(name):
                    del savepoints[name]
                case RollbackTo(name):
                    self.rows, kept = dict(savepoints[name][0]), savepoints[name][1]
                    del changes[kept:]
                case _:
                    changes += self._write(operation)
        if not transaction.commits:
            self.rows, changes = before, []
        return changes

    def _write(self, operation: Operation) -> list[Change]:
        match operation:
            case Insert(table, rows):
                return [self._insert(table, row) for row in rows]
            case Upsert(table, rows, inserted):
                return [self._insert(table, row) for row in rows[:inserted]] + [
                    self._set(table, key_of(table, row), row) for row in rows[inserted:]
                ]
            case Update(table, keys, columns):
                return [self._set(table, key, columns) for key in keys]
            case Delete(table, keys):
                return [change for key in keys for change in self._delete(table, key)]
            case _:
                raise AssertionError(operation)

    def _insert(self, table: str, row: Row) -> Change:
        key = key_of(table, row)
        assert (table, key) not in self.rows, f"{table} {key} exists already"
        if table == "refunds":
            assert ("transactions", (row["transaction_id"],)) in self.rows, "a refund of no payment"
        self.rows[table, key] = row
        return table, "insert"

    def _set(self, table: str, key: Key, columns: Row) -> Change:
        row = {**self.rows.pop((table, key)), **columns}
        self._insert(table, row)
        assert self._orphans(table, key, row) == []
        return table, "update"

    def _orphans(self, table: str, key: Key, row: Row) -> list[Key]:
        return [] if key_of(table, row) == key or table != "transactions" else self._refunds(key)

    def _refunds(self, payment: Key) -> list[Key]:
        found = (
            key
            for (table, key), row in self.rows.items()
            if table == "refunds" and row["transaction_id"] == payment[0]
        )
        return list(found)

    def _delete(self, table: str, key: Key) -> list[Change]:
        del self.rows[table, key]
        cascaded = self._refunds(key) if table == "transactions" else []
        for refund in cascaded:
            del self.rows["refunds", refund]
        return [(table, "delete"), *(("refunds", "delete") for _ in cascaded)]


def _databases() -> dict[str, Database]:
    return {source: Database() for source in ("gateway0", "gateway1", "funding", "apply")}


def _short(seed: int, merchants: int = 12, count: int = 150, mix: Mix | None = None) -> list[Transaction]:
    return list(islice(plan(seed, range(1, merchants + 1), Start(probe_every=5), mix), count))


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_same_seed_same_plan(seed: int) -> None:
    assert _short(seed) == _short(seed)
    assert _short(seed) != _short(seed + 1)


# Mutant: `Stock.undo` does nothing.
@given(seeds, st.integers(6, 40))
@settings(max_examples=40, deadline=None)
def test_every_statement_finds_its_rows_and_counts_what_it_changes(seed: int, merchants: int) -> None:
    databases = _databases()
    for transaction in _short(seed, merchants):
        database, before = databases[transaction.source], dict(databases[transaction.source].rows)
        changes = database.perform(transaction)
        assert sorted(changes) == sorted(transaction.events().elements())
        if not transaction.commits:
            assert database.rows == before


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_rows_stay_in_their_merchants_database(seed: int) -> None:
    databases = _databases()
    for transaction in _short(seed):
        databases[transaction.source].perform(transaction)
    for source in ("gateway0", "gateway1"):
        for row in databases[source].rows.values():
            assert isinstance(row["merchant_id"], int)
            assert gateway_of(row["merchant_id"]) == source


# Mutant: `Stock.spare` returns True.
@given(seeds)
@settings(max_examples=15, deadline=None)
def test_a_merchant_never_loses_its_last_row_of_a_table(seed: int) -> None:
    databases = _databases()
    owned: set[tuple[str, object]] = set()
    for transaction in _short(seed, mix=Mix(insert=20, update=20, delete=60)):
        database = databases[transaction.source]
        database.perform(transaction)
        owned |= {(table, row["merchant_id"]) for (table, _), row in database.rows.items()}
    everywhere = {(t, row["merchant_id"]) for d in databases.values() for (t, _), row in d.rows.items()}
    assert owned == everywhere


# Mutant: `_retire_held` does nothing.
@given(seeds)
@settings(max_examples=25, deadline=None)
def test_nothing_later_touches_the_rows_of_a_held_transaction(seed: int) -> None:
    databases = _databases()
    transactions = _short(seed, mix=Mix(held=20, delete=20))
    for at, transaction in enumerate(transactions):
        if transaction.hold:
            mine = _touched(transaction)
            later = (t for t in transactions[at + 1 :] if t.source == transaction.source)
            assert not any(mine & _touched(other) for other in later)
        assert sorted(databases[transaction.source].perform(transaction)) == sorted(
            transaction.events().elements()
        )
    assert any(transaction.hold for transaction in transactions)


def _touched(transaction: Transaction) -> set[tuple[str, Key]]:
    return {key for operation in transaction.operations for key in _keys(operation)}


def _keys(operation: Operation) -> set[tuple[str, Key]]:
    match operation:
        case Insert(table, rows) | Upsert(table, rows):
            return {(table, key_of(table, row)) for row in rows}
        case Update(table, keys) | Delete(table, keys):
            return {(table, key) for key in keys}
        case _:
            return set()


# Mutant: `Stock.retire` does not follow a refund to its payment.
@given(seeds)
@settings(max_examples=30, deadline=None)
def test_a_probed_row_is_final_and_carries_its_request(seed: int) -> None:
    databases = _databases()
    transactions = _short(seed, count=300, mix=Mix(delete=40))
    probes = [(t.source, t.probe) for t in transactions if t.probe]
    for transaction in transactions:
        databases[transaction.source].perform(transaction)
    assert probes
    for source, probe in probes:
        row = databases[source].rows[probe.table, probe.key]
        assert (row["request_id"], row["merchant_id"]) == (probe.request_id, probe.merchant)


def test_every_kind_of_operation_and_trouble_appears() -> None:
    transactions = _short(1, merchants=50, count=6_000)
    operations = [operation for transaction in transactions for operation in transaction.operations]
    assert {type(operation) for operation in operations} == {
        Insert,
        Upsert,
        Update,
        Delete,
        Savepoint,
        Release,
        RollbackTo,
    }
    assert any(not transaction.commits for transaction in transactions)
    assert any(0.5 <= transaction.hold <= 3 for transaction in transactions)
    assert any(transaction.repeatable_read for transaction in transactions)
    assert any(isinstance(operation, Delete) and operation.refunds for operation in operations)
    updates = [operation for operation in operations if isinstance(operation, Update)]
    assert any("merchant_id" in update.columns for update in updates)
    assert any(set(TABLES[update.table].key) & set(update.columns) for update in updates)
    rows = [row for operation in operations if isinstance(operation, Insert) for row in operation.rows]
    assert 50 in {len(operation.rows) for operation in operations if isinstance(operation, Insert)}
    assert any(row.get("amount") == "9999999999999999.99" for row in rows)
    assert any(len(str(row.get("description"))) >= 10_000 for row in rows)
    assert any(row.get("description", "") is None for row in rows)


def test_the_mix_is_near_what_was_asked_for() -> None:
    counts = {"insert": 0, "update": 0, "delete": 0}
    for transaction in _short(2, merchants=100, count=6_000):
        for (_, kind), count in transaction.events().items():
            counts[kind] += count
    shares = {kind: count / sum(counts.values()) for kind, count in counts.items()}
    assert 0.65 < shares["insert"] < 0.78
    assert 0.18 < shares["update"] < 0.3
    assert 0.03 < shares["delete"] < 0.08
