"""What traffic did: counted after each COMMIT answered, never before."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TextIO

from .operations import Kind, Transaction
from .tables import TABLES


@dataclass(frozen=True, slots=True)
class Report:
    """Committed row changes by (source, table, kind), and what became of the transactions, after so many seconds.

    `missed`: rows that a statement should have found and did not; other than 0 only when somebody else deletes rows,
    and `events` is too high by as many.
    """

    seconds: float
    events: Mapping[tuple[str, str, Kind], int]
    commits: int
    rollbacks: int
    retries: int
    missed: int

    @property
    def total(self) -> int:
        """All committed row changes."""
        return sum(self.events.values())

    @property
    def rate(self) -> float:
        """Committed row changes per second."""
        return self.total / self.seconds if self.seconds else 0.0

    @property
    def commit_rate(self) -> float:
        """Commits per second."""
        return self.commits / self.seconds if self.seconds else 0.0

    def by_source(self) -> dict[str, int]:
        """Committed row changes of each database."""
        return _sums((source, count) for (source, _, _), count in self.events.items())

    def by_kind(self) -> dict[str, int]:
        """Committed inserts, updates and deletes."""
        return _sums((kind, count) for (_, _, kind), count in self.events.items())


def _sums(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for name, count in pairs:
        sums[name] = sums.get(name, 0) + count
    return sums


class Tally:
    """Counts for all threads of a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: Counter[tuple[str, str, Kind]] = Counter()
        self._ends: Counter[str] = Counter()

    def add(self, transaction: Transaction, missed: int, retries: int) -> None:
        """The transaction has ended as planned."""
        with self._lock:
            self._ends.update(
                commits=transaction.commits, rollbacks=not transaction.commits, missed=missed, retries=retries
            )
            for (table, kind), count in transaction.events().items():
                self._events[transaction.source, table, kind] += count

    def report(self, seconds: float) -> Report:
        """The counts so far."""
        with self._lock:
            ends = self._ends
            return Report(
                seconds,
                dict(self._events),
                ends["commits"],
                ends["rollbacks"],
                ends["retries"],
                ends["missed"],
            )


class ProbeLog:
    """JSON lines, one per probed commit, whole lines only, for whoever measures when the row becomes visible.

    {"source", "table", "type", "merchant", "key", "request_id", "monotonic", "wall"}: the row is visible as soon as
    that request_id is. Both times in seconds, taken right after COMMIT answered; `monotonic` is CLOCK_MONOTONIC, the
    same for all processes of the machine.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(self, transaction: Transaction) -> None:
        """Appends the transaction's probe, if it has one. To be called at once when COMMIT has answered."""
        monotonic, wall, probe = time.monotonic(), time.time(), transaction.probe
        if probe is None:
            return
        table = TABLES[probe.table]
        line = {
            "source": transaction.source,
            "table": table.name,
            "type": table.type,
            "merchant": str(probe.merchant),
            "key": dict(zip(table.key, probe.key, strict=True)),
            "request_id": probe.request_id,
            "monotonic": monotonic,
            "wall": wall,
        }
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
