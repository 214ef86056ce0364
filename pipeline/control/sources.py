"""The source databases ever seen: who each one is, and its generation. Rows are never deleted."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.control.database import ControlDatabase


@dataclass(frozen=True, slots=True)
class Source:
    """One source as the control database knows it; ``identity`` is the uuid stored in the source itself.

    ``timeline`` is the highest its relays have worked on, None before the first. ``raise_above``: its relay is asked to go
    above that generation; nothing to do once it has.
    """

    name: str
    identity: str
    generation: int
    timeline: int | None = None
    raise_above: int | None = None


def load(database: ControlDatabase, name: str) -> Source | None:
    """One source, or None when it was never seen."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT name, identity, generation, timeline, raise_above FROM sources WHERE name = %s", (name,)
        ).fetchone()
    return None if row is None else Source(*row)


def highest_generation(database: ControlDatabase) -> int:
    """The highest generation of all sources; 0 when none was ever seen."""
    with database.transaction() as connection:
        row = connection.execute("SELECT coalesce(max(generation), 0) FROM sources").fetchone()
    assert row is not None  # an aggregate yields one row
    return int(row[0])


def store(database: ControlDatabase, source: Source) -> None:
    """Write what is known of a source; a generation never goes down, nor does the timeline of one identity."""
    with database.transaction() as connection:
        connection.execute(_STORE, (source.name, source.identity, source.generation, source.timeline))


def ask_to_raise(database: ControlDatabase, name: str, above: int | None) -> None:
    """Ask the source's relay to raise its generation above this one; None takes it back."""
    with database.transaction() as connection:
        connection.execute("UPDATE sources SET raise_above = %s WHERE name = %s", (above, name))


# greatest() passes over nulls.
_STORE = """
INSERT INTO sources (name, identity, generation, timeline) VALUES (%s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET
  installed_at = CASE WHEN sources.identity = EXCLUDED.identity THEN sources.installed_at ELSE now() END,
  timeline = CASE WHEN sources.identity = EXCLUDED.identity
    THEN greatest(sources.timeline, EXCLUDED.timeline) ELSE EXCLUDED.timeline END,
  identity = EXCLUDED.identity,
  generation = greatest(sources.generation, EXCLUDED.generation)
"""
