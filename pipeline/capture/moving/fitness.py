"""What must hold before a merchant can move: every reason against it, at once."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.capture import away
from pipeline.capture.identity import SCHEMA_VERSION, read_identity, schema_version
from pipeline.capture.lineage import LAST_FOR_MOVES
from pipeline.capture.moving import copying
from pipeline.capture.moving.ends import End, Ends
from pipeline.capture.queue import has_relay
from pipeline.control import placements, sources
from pipeline.control.database import ControlDatabase
from pipeline.domain.routing import is_merchant
from pipeline.domain.table import Table
from pipeline.errors import ConfigurationError


def require(database: ControlDatabase, ends: Ends, merchant: str, *, copied: bool) -> None:
    """ConfigurationError with everything that stands against a move that has not begun.

    `copied`: the operator's own tool brings the rows, so only capture must agree on the tables.
    """
    problems = _names(ends, merchant) or [
        *_installed(ends.source),
        *_installed(ends.target),
        *_placed(database, ends, merchant),
    ]
    if not problems:
        problems = [*_tables(ends, copied=copied)]
        problems += [] if problems else _ready(database, ends, merchant, copied=copied)
    if problems:
        raise ConfigurationError(tuple(problems))
    if not copied:
        copying.in_order(ends.target)


def _names(ends: Ends, merchant: str) -> list[str]:
    problems = []
    if merchant.startswith("_") or not is_merchant(merchant):
        problems.append(
            f'"{merchant}" is no merchant: letters, digits, _ and -, beginning with one of the first two'
        )
    if ends.source.name == ends.target.name:
        problems.append(f"{ends.source.name} is both: a merchant moves from one source to another")
    return problems


def _installed(end: End) -> Iterator[str]:
    identity, version = read_identity(end.connection), schema_version(end.connection)
    if identity is None or identity.source != end.name or version != SCHEMA_VERSION:
        yield f"source {end.name}: capture of this release is not installed; run: pipeline capture install {end.name}"


def _placed(database: ControlDatabase, ends: Ends, merchant: str) -> Iterator[str]:
    placement = placements.load(database, merchant)
    if placement is not None and placement.finished_at is None:
        yield f"merchant {merchant} is moving from {placement.source} to {placement.target}: end or revoke that first"
    elif placement is not None and ends.source.name in placement.away:
        yield f"merchant {merchant} does not live in {ends.source.name}: it moved to {placement.target}"


def _ready(database: ControlDatabase, ends: Ends, merchant: str, *, copied: bool) -> Iterator[str]:
    if merchant in away.merchants(ends.source.connection):
        yield f"merchant {merchant} is away in {ends.source.name}"
    if not copying.has_rows(ends.source.connection, ends.source.tables.values(), merchant):
        yield f"source {ends.source.name} has no row of merchant {merchant} in any captured table"
    target = ends.target.connection, ends.target.tables.values()
    if not copied and copying.has_rows(*target, merchant):
        here = copying.contents(ends.source.connection, ends.source.tables.values(), merchant)
        there = copying.contents(*target, merchant)
        if any(there[type_] != content for type_, content in here.items()):
            yield (
                f"source {ends.target.name} holds other rows of merchant {merchant}; what is left of a former stay is"
                f" deleted by: {'; '.join(copying.deletions(ends.target, merchant))}"
            )
    for end in (ends.source, ends.target):
        if not has_relay(end.connection):
            yield f"source {end.name} has no relay at work; start: pipeline capture run {end.name}"
    highest = sources.highest_generation(database)
    if highest >= LAST_FOR_MOVES:
        yield f"generation {highest} is in use: from {LAST_FOR_MOVES} on none is raised for a move"


def _tables(ends: Ends, *, copied: bool) -> Iterator[str]:
    for type_, table in ends.source.tables.items():
        there = ends.target.tables.get(type_)
        if there is None:
            yield f'source {ends.target.name} captures no table of type "{type_}", which {table.name} of {ends.source.name} has'
            continue
        if (there.shape, there.key) != (table.shape, table.key):
            yield f'type "{type_}": its columns or primary key differ between {ends.source.name} and {ends.target.name}'
        if not copied:
            yield from _copyable(ends, table, there)


def _copyable(ends: Ends, table: Table, there: Table) -> Iterator[str]:
    here = copying.stored_columns(ends.source.connection, table)
    if here != copying.stored_columns(ends.target.connection, there):
        yield f"{table.name} of {ends.source.name} and {there.name} of {ends.target.name} have not the same columns"
    rights = ends.target.connection.execute(
        "SELECT current_user, has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'DELETE')"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname || '.' || relname = %s",
        (there.name,),
    ).fetchone()
    if rights is None or not rights[1]:
        who = rights[0] if rights else "the role"
        yield f"source {ends.target.name}: {who} lacks the rights to add rows to {there.name} and delete them"
