"""Seeded traffic with a known order: every merchant's changes are numbered, one writer per merchant.

A merchant's step n is committed before its step n + 1 begins, across both tables, so a consumer's first deliveries
must be 1, 2, 3 … for each merchant. Deletes carry no number of their own (their event has the old row): they follow an
update of the same row in the same transaction. Transactions hold one to five steps; some are rolled back, some use
savepoints, some stay open while others commit.
"""

import threading
from dataclasses import dataclass, field
from random import Random

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.acceptance.deployment import SOURCES, Deployment

MERCHANTS = tuple(str(number) for number in range(1, 25))


@dataclass
class Merchant:
    """What a merchant's writer knows: the last committed step and its living rows."""

    name: str
    step: int = 0
    steps: list[int] = field(default_factory=list)
    notes: list[int] = field(default_factory=list)
    numbered: int = 0


class Writer:
    """One thread per source; ``stop`` ends it, ``write`` runs a fixed number of transactions instead."""

    def __init__(self, deployment: Deployment, seed: int, pause: float = 0.02) -> None:
        self._deployment = deployment
        self._pause = pause
        self._stopping = threading.Event()
        self.merchants = {
            source: [Merchant(name) for name in MERCHANTS if int(name) % len(SOURCES) == index]
            for index, source in enumerate(SOURCES)
        }
        self._random = {source: Random(f"{seed} {source}") for source in SOURCES}
        self._threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    @property
    def steps(self) -> dict[str, int]:
        """The last committed step of each merchant."""
        return {merchant.name: merchant.step for each in self.merchants.values() for merchant in each}

    def start(self) -> None:
        """Write on all sources until stopped."""
        self._threads = [threading.Thread(target=self._run, args=(source,)) for source in SOURCES]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the transactions under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        assert not self.failures, self.failures

    def write(self, source: str, transactions: int) -> None:
        """Run so many transactions now."""
        with psycopg.connect(self._deployment.writer_url(source)) as connection:
            for _ in range(transactions):
                self._transaction(connection, source)

    def _run(self, source: str) -> None:
        try:
            with psycopg.connect(self._deployment.writer_url(source)) as connection:
                while not self._stopping.wait(self._pause):
                    self._transaction(connection, source)
        except psycopg.Error as error:
            self.failures.append(error)

    def _transaction(self, connection: Connection[TupleRow], source: str) -> None:
        random = self._random[source]
        merchant = random.choice(self.merchants[source])
        before = (merchant.step, merchant.steps.copy(), merchant.notes.copy(), merchant.numbered)
        undone = random.random() < 0.05
        with connection.transaction(force_rollback=undone):
            for _ in range(random.choice((1, 1, 1, 2, 5))):
                self._change(connection, merchant, random)
        if undone:
            merchant.step, merchant.steps, merchant.notes, merchant.numbered = before

    def _change(self, connection: Connection[TupleRow], merchant: Merchant, random: Random) -> None:
        merchant.step += 1
        chance = random.random()
        if chance < 0.5 or not (merchant.steps and merchant.notes):
            self._insert(connection, merchant, random)
        elif chance < 0.85:
            self._update(connection, merchant, random)
        else:
            self._delete(connection, merchant, random)

    def _insert(self, connection: Connection[TupleRow], merchant: Merchant, random: Random) -> None:
        if random.random() < 0.6 or not merchant.steps:
            row = connection.execute(
                "INSERT INTO steps (merchant_id, step, amount, note) VALUES (%s, %s, %s, %s) RETURNING id",
                (merchant.name, merchant.step, random.randrange(10**6) / 100, _text(random)),
            ).fetchone()
            assert row is not None
            merchant.steps.append(row[0])
        else:
            merchant.numbered += 1
            connection.execute(
                "INSERT INTO notes (merchant_id, number, step, body, extra) VALUES (%s, %s, %s, %s, %s)",
                (merchant.name, merchant.numbered, merchant.step, _text(random), '{"a": [1, 2.5, null]}'),
            )
            merchant.notes.append(merchant.numbered)

    def _update(self, connection: Connection[TupleRow], merchant: Merchant, random: Random) -> None:
        if random.random() < 0.6:
            connection.execute(
                "UPDATE steps SET step = %s, amount = amount + 1 WHERE id = %s",
                (merchant.step, random.choice(merchant.steps)),
            )
        else:
            connection.execute(
                "UPDATE notes SET step = %s, body = %s WHERE merchant_id = %s AND number = %s",
                (merchant.step, _text(random), merchant.name, random.choice(merchant.notes)),
            )

    def _delete(self, connection: Connection[TupleRow], merchant: Merchant, random: Random) -> None:
        victim = random.choice(merchant.steps)
        merchant.steps.remove(victim)
        connection.execute("UPDATE steps SET step = %s WHERE id = %s", (merchant.step, victim))
        connection.execute("DELETE FROM steps WHERE id = %s", (victim,))


def _text(random: Random) -> str | None:
    return random.choice((None, "", "plain", "ümläut 'quoted' \"twice\"\nnew line \\ back", "x" * 2000))
