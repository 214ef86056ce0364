"""Where merchants live that have moved between sources: the newest move of each, and the last step of it that is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast, get_args

from psycopg import sql
from psycopg.types.json import Jsonb

from pipeline.control.database import Connection, ControlDatabase

Step = Literal[
    "checked",
    "away_target",
    "frozen",
    "away_source",
    "drained",
    "copied",
    "raised",
    "homing",
    "home",
    "snapshot",
    "done",
    "revoking",
    "revoked",
]
"""``homing`` is noted before the merchant gets a new home: from there on nothing leads back. So is ``revoking``."""
_ORDER: dict[Step, int] = {step: place for place, step in enumerate(get_args(Step))}


@dataclass(frozen=True, slots=True)
class Placement:
    """A merchant's newest move, from `source` to `target`; ``step`` is the last one that is done.

    ``detail``: ``away`` are the sources that the merchant was away from before; ``held`` is true when the target had rows
    of it then; ``mine`` when those there were copied by this move; ``rows`` is what the source had when they were copied;
    ``snapshot`` is the one at the end.
    """

    merchant: str
    source: str
    target: str
    step: Step
    detail: dict[str, Any]
    reason: str
    started_at: datetime
    changed_at: datetime
    finished_at: datetime | None

    def past(self, step: Step) -> bool:
        """True when `step` is done and the move is not being revoked."""
        return self.step not in ("revoking", "revoked") and _ORDER[self.step] >= _ORDER[step]

    @property
    def revocable(self) -> bool:
        """True until the merchant may be at home in the target."""
        return self.finished_at is None and not self.past("homing")

    @property
    def away(self) -> frozenset[str]:
        """The sources in which the merchant must be away now; while something is under way, those of which that is sure."""
        away = set(self.detail.get("away", ()))
        if self.step == "revoking":
            return frozenset(away - {self.source, self.target})
        if self.past("away_target"):
            away.add(self.target)
        if self.past("away_source"):
            away.add(self.source)
        return frozenset(away - {self.target} if self.past("homing") else away)

    @property
    def home(self) -> str | None:
        """The source in which the merchant must not be away, as far as this move has made sure of one."""
        return self.target if self.past("home") else None


_SELECT = sql.SQL(
    "SELECT merchant, source, target, step, detail, reason, started_at, changed_at, finished_at FROM placements"
)


def load(database: ControlDatabase, merchant: str) -> Placement | None:
    """A merchant's newest move; None for one that never moved."""
    with database.transaction() as connection:
        row = connection.execute(_SELECT + sql.SQL(" WHERE merchant = %s"), (merchant,)).fetchone()
    return None if row is None else Placement(*row)


def listed(database: ControlDatabase) -> list[Placement]:
    """All of them, those under way first."""
    query = _SELECT + sql.SQL(" ORDER BY finished_at IS NOT NULL, merchant")
    with database.transaction() as connection:
        return [Placement(*row) for row in connection.execute(query)]


def under_way(database: ControlDatabase) -> list[Placement]:
    """Those that are not over: what sinks hold of these merchants may be another source's than the one they live in."""
    return [placement for placement in listed(database) if placement.finished_at is None]


def begin(
    database: ControlDatabase, merchant: str, source: str, target: str, reason: str, *, held: bool
) -> Placement:
    """A move that was looked into and may begin; of the former one remains where the merchant is away."""
    former = load(database, merchant)
    detail = {"away": sorted(former.away) if former is not None else [], "held": held}
    with database.transaction() as connection:
        row = connection.execute(
            "INSERT INTO placements (merchant, source, target, step, detail, reason)"
            " VALUES (%s, %s, %s, 'checked', %s, %s) ON CONFLICT (merchant) DO UPDATE SET source = EXCLUDED.source,"
            " target = EXCLUDED.target, step = EXCLUDED.step, detail = EXCLUDED.detail, reason = EXCLUDED.reason,"
            " started_at = now(), changed_at = now(), finished_at = NULL RETURNING merchant, source, target, step,"
            " detail, reason, started_at, changed_at, finished_at",
            (merchant, source, target, Jsonb(detail), reason),
        ).fetchone()
    return Placement(*cast(Any, row))


def advance(database: ControlDatabase, merchant: str, step: Step, **detail: object) -> Placement:
    """A step is done, and what is to be remembered of it."""
    with database.transaction() as connection:
        row = connection.execute(
            "UPDATE placements SET step = %s, detail = detail || %s, changed_at = now(),"
            " finished_at = CASE WHEN %s THEN now() END WHERE merchant = %s RETURNING merchant, source, target, step,"
            " detail, reason, started_at, changed_at, finished_at",
            (step, Jsonb(detail), step in ("done", "revoked"), merchant),
        ).fetchone()
    return Placement(*cast(Any, row))


@contextmanager
def held(database: ControlDatabase, source: str) -> Iterator[list[Placement]]:
    """The moves that concern a source, none of which goes on meanwhile."""
    query = _SELECT + sql.SQL(" WHERE %(one)s IN (source, target) OR detail->'away' ? %(one)s FOR SHARE")
    with database.transaction() as connection:
        yield [Placement(*row) for row in connection.execute(query, {"one": source})]


@contextmanager
def alone(database: ControlDatabase, merchant: str) -> Iterator[bool]:
    """Hold the merchant's advisory lock, or yield False at once when somebody else does.

    `database` must not be used for anything else meanwhile: the lock lives as long as its connection.
    """
    with database.transaction() as connection:
        held = _locked(connection, merchant)
    try:
        yield held
    finally:
        database.close()


def _locked(connection: Connection, merchant: str) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended('move ' || %s, 0))", (merchant,))
    return bool(row.fetchone()[0])  # type: ignore[index]  # a SELECT without FROM yields one row
