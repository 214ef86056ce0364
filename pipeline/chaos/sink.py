"""The sink of a chaos run: PostgreSQL, which refuses what comes before its predecessor and counts everything.

``take`` is the consumer's handler. It runs in the workers; ``Sink`` is the same sink for whoever runs the chaos.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from pipeline.consumer import SinkUnavailableError, Turn
from pipeline.settings import load

_SLOWEST = 0.08  # seconds before it writes, and again before it answers: where a fault finds a turn in hand
Poison = Literal["park", "fail"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """What the sink has of one merchant: everything up to ``last``."""

    last: int
    duplicates: int
    regressions: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A number that came before its predecessor; ``taker`` is the process that brought it."""

    merchant: str
    expected: int
    got: int
    token: int
    taker: str


class Sink:
    """One schema of the control database; a connection per thread, each statement its own transaction."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = sql.Identifier(schema)
        self._local = threading.local()

    def create(self, merchants: Iterable[str]) -> None:
        """Make it, empty; of every other merchant it also refuses old tokens."""
        text = (files("pipeline.chaos") / "sink.sql").read_bytes()
        self._run(sql.SQL("CREATE SCHEMA {}").format(self._schema))
        self._run(sql.SQL("SET search_path TO {}").format(self._schema))
        self._run(sql.SQL(text.decode()))  # ours, of this package
        names = list(merchants)
        self._run(
            sql.SQL(
                "INSERT INTO lanes (merchant, fenced) SELECT m, n %% 2 = 0 FROM unnest(%s::text[]) WITH ORDINALITY u(m, n)"
            ),
            names,
        )
        self.close()

    def drop(self) -> None:
        """Take it away."""
        self._run(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(self._schema))
        self.close()

    def deliver(
        self, token: int, taker: str, numbers: Mapping[str, list[int]]
    ) -> dict[str, tuple[int, str | None]]:
        """Take a turn's numbers: per merchant how many were accepted, and why the next one was not."""
        rows = self._run(
            sql.SQL("SELECT * FROM {}.take(%s, %s, %s)").format(self._schema),
            token,
            taker,
            Jsonb(dict(numbers)),
        )
        return {merchant: (accepted, trouble) for merchant, accepted, trouble in rows}

    def delivered(self) -> dict[str, Delivered]:
        """Every merchant."""
        query = sql.SQL("SELECT merchant, last, duplicates, regressions, skipped FROM {}.lanes").format(
            self._schema
        )
        return {merchant: Delivered(*figures) for merchant, *figures in self._run(query)}

    def gaps(self) -> list[Gap]:
        """What was refused, the first one first."""
        query = sql.SQL("SELECT merchant, expected, got, token, taker FROM {}.gaps ORDER BY at").format(
            self._schema
        )
        return [Gap(*row) for row in self._run(query)]

    def go_away(self) -> None:
        """From now on it takes nothing."""
        self._run(sql.SQL("INSERT INTO {}.away VALUES (0)").format(self._schema))

    def come_back(self) -> None:
        """It takes everything again."""
        self._run(sql.SQL("DELETE FROM {}.away").format(self._schema))

    def poison(self, merchant: str, number: int, kind: Poison) -> None:
        """From now on it cannot take this number."""
        self._run(
            sql.SQL("INSERT INTO {}.poison (merchant, number, kind) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING").format(self._schema),
            merchant, number, kind,
        )  # fmt: skip

    def cure(self, merchants: Sequence[str]) -> None:
        """It can take everything of these merchants again."""
        self._run(
            sql.SQL("DELETE FROM {}.poison WHERE merchant = ANY(%s)").format(self._schema), list(merchants)
        )

    def meet(self, merchant: str, number: int, offset: int) -> None:
        """A worker has met a poisonous number."""
        self._run(
            sql.SQL("UPDATE {}.poison SET record_offset = %s WHERE merchant = %s AND number = %s").format(
                self._schema
            ),
            offset, merchant, number,
        )  # fmt: skip

    def met(self, merchant: str, number: int) -> int | None:
        """At which offset a poisonous number was met; None when it was not."""
        query = sql.SQL("SELECT record_offset FROM {}.poison WHERE merchant = %s AND number = %s")
        rows = self._run(query.format(self._schema), merchant, number)
        return rows[0][0] if rows else None

    def allowed(self) -> dict[str, set[int]]:
        """Numbers that may be missing, by merchant."""
        found: dict[str, set[int]] = {}
        for merchant, number in self._run(
            sql.SQL("SELECT merchant, number FROM {}.skips").format(self._schema)
        ):
            found.setdefault(merchant, set()).add(number)
        return found

    def allow_skip(self, merchant: str, number: int) -> None:
        """This number may be missing."""
        self._run(
            sql.SQL("INSERT INTO {}.skips VALUES (%s, %s) ON CONFLICT DO NOTHING").format(self._schema),
            merchant,
            number,
        )

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            connection.close()

    def _run(self, query: sql.SQL | sql.Composed, *values: object) -> list[Any]:
        connection = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=5, application_name="chaos"
            )
            self._local.connection = connection
        cursor = connection.execute(query, values or None)
        return cursor.fetchall() if cursor.description else []


def take(turn: Turn) -> None:
    """Deliver a turn's numbers; a lane fails whose next number it refuses."""
    dice = random.Random(turn.token)
    numbers = {lane.merchant: [int(event.key["id"]) for event in lane.events] for lane in turn}
    time.sleep(dice.uniform(0, _SLOWEST))
    try:
        answers = _sink().deliver(turn.token, f"{os.getpid()}", numbers)
    except psycopg.OperationalError as error:
        raise SinkUnavailableError(f"chaos sink: {type(error).__name__}") from error
    time.sleep(dice.uniform(0, _SLOWEST))
    for lane in turn:
        accepted, trouble = answers[lane.merchant]
        lane.done(accepted)
        if trouble in ("park", "fail"):
            _sink().meet(lane.merchant, numbers[lane.merchant][accepted], lane.offsets[accepted])
        if trouble == "park":
            lane.park("chaos: poison")
        elif trouble is not None:
            lane.retry(f"chaos: {trouble}", after=0.2)


@cache
def _sink() -> Sink:
    known = load()
    return Sink(known.environment.control_database_url.get_secret_value(), known.deployment)
