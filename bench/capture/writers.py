"""What capture costs a writer: one statement on the same table without a trigger, with ours, with PgQ's own, in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import psycopg

from bench.capture import tables
from bench.capture.pgbench import transactions_per_s
from bench.capture.site import WRITERS, CaptureSite
from bench.capture.tables import BARE, BY_ROW, BY_STATEMENT, COLUMNS, JSONTRIGA, ROWS, VALUES

Operation = Literal["insert", "update", "bulk"]
TOGETHER = 100  # rows of a bulk statement
WRITTEN: Mapping[Operation, Sequence[str]] = {
    "insert": (BARE, BY_ROW, JSONTRIGA),
    "update": (BARE, BY_ROW, JSONTRIGA),
    "bulk": (BARE, BY_ROW, BY_STATEMENT, JSONTRIGA),
}
_INSERT = f"\\set number random(1, 1000000)\nINSERT INTO {{table}} ({COLUMNS}) VALUES ({VALUES});\n"
_UPDATE = (
    f"\\set row random(1, {ROWS})\n\\set number random(1, 1000000)\n"
    "UPDATE {table} SET status = 'captured', amount = :number + 0.25, updated_at = now() WHERE id = :row;\n"
)
_BULK = f"INSERT INTO {{table}} ({COLUMNS}) SELECT {VALUES} FROM generate_series(1, {TOGETHER}) n;\n"  # noqa: S608  ours


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing measured: an operation on a table, with synchronous_commit on (`durable`) or off."""

    operation: Operation
    table: str
    durable: bool


@dataclass(slots=True)
class Writers:
    """Statements per second of each cell, one figure per round; `image` is the bytes of a row's JSON."""

    image: float = 0.0
    rates: dict[Cell, list[float]] = field(default_factory=dict)

    def ratio(self, operation: Operation, table: str, *, than: str = BARE, durable: bool = False) -> float:
        """The median rate on `table` by that on another one."""
        return median(self.rates[Cell(operation, table, durable)]) / median(
            self.rates[Cell(operation, than, durable)]
        )

    def ratios(self, operation: Operation, table: str, *, durable: bool = False) -> list[float]:
        """Round by round, the rate on `table` by that without a trigger."""
        pairs = zip(
            self.rates[Cell(operation, table, durable)],
            self.rates[Cell(operation, BARE, durable)],
            strict=True,
        )
        return [ours / bare for ours, bare in pairs]


def script(operation: Operation, table: str) -> str:
    """What pgbench runs."""
    templates: Mapping[Operation, str] = {
        "insert": _INSERT.replace("{number}", ":number"),
        "update": _UPDATE,
        "bulk": _BULK.replace("{number}", "n"),
    }
    return templates[operation].replace("{table}", table)


def order(number: int) -> list[Cell]:
    """The cells of a round; those to be compared stand beside each other, each round begins with another one."""
    found = []
    for durable in (False, True):
        for operation, written in WRITTEN.items():
            turn = number % len(written)
            found += [Cell(operation, table, durable) for table in (*written[turn:], *written[:turn])]
    return found


def measure(site: CaptureSite, rounds: int, seconds: float, say: Callable[[str, int, int], None]) -> Writers:
    """So many rounds of every cell, `seconds` each."""
    result, done = Writers(), 0
    with psycopg.connect(site.admin_url_of(WRITERS), autocommit=True) as session:
        tables.prepare(session)
        for number in range(rounds):
            tables.reset(session)
            result.image = tables.image_bytes(session)
            for cell in order(number):
                say(f"writers: {cell.operation} into {cell.table}", done, rounds * len(order(0)))
                rate = transactions_per_s(
                    site.writer_url_of(WRITERS),
                    script(cell.operation, cell.table),
                    site.directory / "pgbench.sql",
                    seconds=seconds,
                    durable=cell.durable,
                )
                result.rates.setdefault(cell, []).append(rate)
                done += 1
    return result
