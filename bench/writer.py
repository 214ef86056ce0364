"""The writer of a latency run, a process of its own: changes at a rate, some of which are probes.

``python -m bench.writer RATE SECONDS PROBES LOG``, the database in BENCH_WRITER_URL. A probe is a new row that nobody
touches again; the moment its COMMIT answered goes into LOG, as example/report.py's ProbeLog writes it. Prints what it
reached as JSON: {"changes", "seconds", "probes"}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TextIO

import psycopg

from bench.deployment import TYPE
from bench.load import Changes, perform

FIRST = 1_000_000_000  # beyond the rows of every drain
_TOGETHER = 10  # changes in a transaction


def run(url: str, rate: float, seconds: float, probes: int, log: TextIO) -> dict[str, float]:
    """Transactions of ten changes, evenly spread; a late one is made up for."""
    changes = Changes(seed=7, first=FIRST)
    transactions = max(1, round(rate * seconds / _TOGETHER))
    every = max(1, transactions // max(1, probes))
    written = 0
    with psycopg.connect(url) as session:
        began = time.monotonic()
        for number in range(transactions):
            due = began + number * _TOGETHER / rate
            time.sleep(max(0.0, due - time.monotonic()))
            written += _transaction(session, changes, log if number % every == 0 else None)
    return {"changes": transactions * _TOGETHER, "seconds": time.monotonic() - began, "probes": written}


def _transaction(session: psycopg.Connection, changes: Changes, log: TextIO | None) -> int:
    if log is None:
        perform(session, list(changes.take(_TOGETHER)))
        return 0
    probe = changes.insert(untouched=True)
    perform(session, [probe, *changes.take(_TOGETHER - 1)])
    line = {"type": TYPE, "request_id": probe.values["request_id"], "monotonic": time.monotonic()}
    log.write(json.dumps(line) + "\n")
    log.flush()
    return 1


def main() -> None:
    """The command line."""
    rate, seconds, probes, path = sys.argv[1:]
    with Path(path).open("a") as log:
        done = run(os.environ["BENCH_WRITER_URL"], float(rate), float(seconds), int(probes), log)
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
