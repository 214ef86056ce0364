"""From what is there to what to capture: every choice is one that capture accepts, every guess is marked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline import settings
from pipeline.capture import catalog
from pipeline.capture.proposal.inventory import Found, inventory
from pipeline.capture.proposal.ownership import merchant_column, owners
from pipeline.capture.proposal.sensitive import Suspicion, suspicions
from pipeline.capture.session import Connection, session
from pipeline.domain.table import Rule

_HOUSEKEEPING = re.compile(
    r"schema_migrations?|alembic_version|django_migrations|ar_internal_metadata|flyway_schema_history|databasechangelog(lock)?"
    r"|knex_migrations(_lock)?|_prisma_migrations|goose_db_version|spatial_ref_sys"
)


@dataclass(slots=True)
class Choice:
    """One table as it would be captured; ``doubts`` and ``reasons`` (by column) are for the reader."""

    table: str
    configured: settings.SourceTable
    doubts: list[str]
    reasons: Mapping[str, str]


@dataclass(slots=True)
class Proposal:
    """What to capture of one database, what was left out and why, and what else stands in the way of capturing it."""

    database: str
    source: str
    choices: list[Choice] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    problems: Sequence[str] = ()


def propose(url: str, source: str | None, column: str | None = None) -> Proposal:
    """A proposal for the database at `url`; `source` and the merchant's `column` are found out when None.

    Reads in one read-only transaction, in which no statement takes longer than ten seconds or waits for a lock.
    """
    with session(url) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute("SET LOCAL statement_timeout = '10s'")
        connection.execute("SET LOCAL lock_timeout = '1s'")
        row = connection.execute("SELECT current_database()").fetchone()
        assert row is not None  # a SELECT without FROM yields one row
        proposal = Proposal(row[0], source or named(row[0], "source"))
        found = inventory(connection)
        known = [table for table in found if not _HOUSEKEEPING.fullmatch(table.name.split(".", 1)[1])]
        proposal.left_out += [
            (table.name, "keeps the state of migrations or of an extension")
            for table in found
            if table not in known
        ]
        _choose(connection, proposal, known, column or merchant_column(known))
        _drop_refused(connection, proposal)
    return proposal


def named(text: str, otherwise: str) -> str:
    """A name as ``pipeline.toml`` takes it, like `text`."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:31].rstrip("_")
    return name if settings.NAME.fullmatch(name) else f"{otherwise}_{name}"[:31].rstrip("_")


def _choose(connection: Connection, proposal: Proposal, tables: Sequence[Found], column: str | None) -> None:
    owned = owners(tables, column)
    types: set[str] = set()
    for table in tables:
        schema, relation = table.name.split(".", 1)
        if "." in relation or "." in schema:
            proposal.left_out.append((table.name, "has a dot in its name"))
            continue
        owner = owned[table.name]
        suspects, unseen = suspicions(connection, table)
        doubts = [*owner.doubts, *unseen]
        kept = {*table.key, owner.merchant.column, owner.merchant.on}
        suspects = list(_without(kept, suspects, doubts)) + _unfit(table, kept)
        type_ = _type(schema, relation, types)
        proposal.choices.append(
            Choice(
                table.name,
                settings.SourceTable(
                    merchant=owner.merchant,
                    type=None if type_ == relation else type_,
                    exclude=tuple(each.column for each in suspects if each.way == "exclude"),
                    columns=dict(_rules(suspects)),
                ),
                doubts,
                {each.column: each.why for each in suspects},
            )
        )


def _rules(suspects: Sequence[Suspicion]) -> Iterator[tuple[str, Rule]]:
    for each in suspects:
        if each.way != "exclude":
            yield each.column, each.way


def _without(kept: set[str | None], suspects: Sequence[Suspicion], doubts: list[str]) -> Iterator[Suspicion]:
    for each in suspects:
        if each.column in kept:
            doubts.append(f'"{each.column}" looks sensitive ({each.why}), but is needed as key or merchant')
        else:
            yield each


def _unfit(table: Found, kept: set[str | None]) -> list[Suspicion]:
    """Columns whose names the sinks cannot take."""
    found, seen = [], {name.lower() for name, _ in table.columns if name in kept}
    for name, _ in table.columns:
        if name in kept:
            continue
        if name == "cdc" or name.startswith("_") or "." in name:
            found.append(Suspicion(name, "exclude", "the sinks cannot take its name"))
        elif name.lower() in seen:
            found.append(Suspicion(name, "exclude", "the warehouse takes it for another column of that name"))
        else:
            seen.add(name.lower())
    return found


def _type(schema: str, relation: str, taken: set[str]) -> str:
    plain = relation if settings.NAME.fullmatch(relation) else named(relation, "type")
    candidates = [
        plain,
        named(f"{schema}_{relation}", "type"),
        *(f"{plain[:27]}_{n}" for n in range(2, 1000)),
    ]
    chosen = next(each for each in candidates if each not in taken)
    taken.add(chosen)
    return chosen


def _drop_refused(connection: Connection, proposal: Proposal) -> None:
    """Ask the catalog as `pipeline check` will, until nothing stands against what is left: a parent may go, then its children."""
    while True:
        source = settings.Source(tables={choice.table: choice.configured for choice in proposal.choices})
        examined = catalog.examine(connection, proposal.source, source)
        proposal.problems = examined.problems
        refused = {table: reasons for table, reasons in examined.reasons.items() if reasons}
        proposal.left_out += [(table, "; ".join(reasons)) for table, reasons in sorted(refused.items())]
        proposal.choices = [choice for choice in proposal.choices if choice.table not in refused]
        if not refused:
            return
