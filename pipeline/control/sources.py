"""The source databases ever seen: who each one is, and its generation. Rows are never deleted."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.control.database import ControlDatabase


@dataclass(frozen=True, slots=True)
class Source:
    """One source as the control database knows it; ``identity`` is the uuid stored in the source itself."""

    name: str
    identity: str
    generation: int


def load(database: ControlDatabase, name: str) -> Source | None:
    """One source, or None when it was never seen."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT name, identity, generation FROM sources WHERE name = %s", (name,)
        ).fetchone()
    return None if row is None else Source(*row)


def highest_generation(database: ControlDatabase) -> int:
    """The highest generation of all sources; 0 when none was ever seen."""
    with database.transaction() as connection:
        row = connection.execute("SELECT coalesce(max(generation), 0) FROM sources").fetchone()
    assert row is not None  # an aggregate yields one row
    return int(row[0])


def store(database: ControlDatabase, source: Source) -> None:
    """Write what is known of a source; a generation never goes down."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO sources (name, identity, generation) VALUES (%s, %s, %s) ON CONFLICT (name) DO UPDATE"
            " SET identity = EXCLUDED.identity, installed_at = now(),"
            " generation = greatest(sources.generation, EXCLUDED.generation)",
            (source.name, source.identity, source.generation),
        )
