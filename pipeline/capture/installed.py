"""What installs have left in a source: triggers and their functions, whoever's tables they are on by now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from pipeline.capture import triggers as generated
from pipeline.capture.script import Statement
from pipeline.capture.session import Connection
from pipeline.domain.table import Table


@dataclass(frozen=True, slots=True)
class Trigger:
    """One of our triggers, on the table as it is called now; of a partition, ``root`` is the table it is a part of."""

    schema: str
    relation: str
    name: str
    root: str

    @property
    def identifier(self) -> sql.Identifier:
        """The table in SQL."""
        return sql.Identifier(self.schema, self.relation)

    def removal(self) -> Statement:
        """What drops it."""
        return sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(self.name), self.identifier)


def triggers(connection: Connection) -> list[Trigger]:
    """All of ours; not those that a partition has from its parent and loses with it."""
    rows = connection.execute(
        "SELECT n.nspname, c.relname, t.tgname, rn.nspname || '.' || r.relname FROM pg_trigger t"
        " JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_class r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid)"
        " JOIN pg_namespace rn ON rn.oid = r.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid"
        " JOIN pg_namespace s ON s.oid = p.pronamespace"
        " WHERE s.nspname = 'cdc' AND t.tgparentid = 0 ORDER BY 1, 2, 3"
    )
    return [Trigger(*row) for row in rows]


def obsolete_triggers(connection: Connection, kept: Sequence[Table]) -> list[Trigger]:
    """Those of tables that are captured no more, or otherwise."""
    places = generated.places(kept)
    return [trigger for trigger in triggers(connection) if (trigger.root, trigger.name) not in places]


def obsolete_functions(connection: Connection, kept: Sequence[Table]) -> Iterable[Statement]:
    """What drops the functions and types that no table needs any more; their triggers must be gone."""
    names = generated.function_names(kept)
    functions = connection.execute(
        "SELECT proname, format('DROP FUNCTION %s', oid::regprocedure) FROM pg_proc"
        " WHERE pronamespace = 'cdc'::regnamespace ORDER BY 1"
    ).fetchall()
    for name, statement in functions:
        if name not in names:
            yield sql.SQL(statement)
            yield sql.SQL("DROP TYPE IF EXISTS cdc.{}").format(sql.Identifier(name))
