"""Merchants that are away: their rows lie in this source and are not its to tell, because another source is their home.

``cdc.away(merchant)`` and ``cdc.home(merchant)`` note from which ev_id to which. The relay leaves out what a merchant's
changes and domain events have between the two; snapshots and verify leave out the rows while it lasts. No trigger
looks: a writer pays nothing, and nothing has to be locked.

Each draws its ev_id before it takes its transaction id, as a mark does. So once every transaction up to that id has
ended, no event with a lower ev_id can appear any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg import sql

from pipeline.capture.session import Connection

Intervals = Mapping[str, Sequence[tuple[int, int | None]]]
"""By merchant: (away_ev, home_ev or None while it lasts), both exclusive."""


def schema() -> Iterable[sql.SQL]:
    """What the source needs for it; statements that may be repeated."""
    yield sql.SQL(
        "CREATE TABLE IF NOT EXISTS cdc.away (merchant text, away_ev bigint, away_txid bigint NOT NULL,"
        " at timestamptz NOT NULL DEFAULT now(), home_ev bigint, home_txid bigint, PRIMARY KEY (merchant, away_ev))"
    )
    yield sql.SQL("CREATE UNIQUE INDEX IF NOT EXISTS away_once ON cdc.away (merchant) WHERE home_ev IS NULL")
    yield _AWAY
    yield _HOME


_AWAY = sql.SQL("""
CREATE OR REPLACE FUNCTION cdc.away(merchant text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $cdc$
#variable_conflict use_variable
DECLARE
  v_ev bigint;
BEGIN
  IF txid_current_if_assigned() IS NOT NULL THEN
    RAISE EXCEPTION 'cdc.away is called in a transaction of its own';
  END IF;
  IF merchant IS NULL OR merchant COLLATE "C" !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$' THEN
    RAISE EXCEPTION 'cdc.away: this is no merchant id';
  END IF;
  PERFORM set_config('synchronous_commit', 'on', true);
  SELECT a.away_ev INTO v_ev FROM cdc.away a WHERE a.merchant = merchant AND a.home_ev IS NULL;
  IF NOT FOUND THEN
    SELECT nextval(q.queue_event_seq::regclass) INTO STRICT v_ev FROM pgq.queue q WHERE q.queue_name = 'cdc';
    INSERT INTO cdc.away AS a (merchant, away_ev, away_txid) VALUES (merchant, v_ev, txid_current());
  END IF;
  RETURN v_ev;
END
$cdc$
""")

_HOME = sql.SQL("""
CREATE OR REPLACE FUNCTION cdc.home(merchant text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $cdc$
#variable_conflict use_variable
DECLARE
  v_ev bigint;
BEGIN
  IF txid_current_if_assigned() IS NOT NULL THEN
    RAISE EXCEPTION 'cdc.home is called in a transaction of its own';
  END IF;
  PERFORM set_config('synchronous_commit', 'on', true);
  SELECT nextval(q.queue_event_seq::regclass) INTO STRICT v_ev FROM pgq.queue q WHERE q.queue_name = 'cdc';
  UPDATE cdc.away a SET home_ev = v_ev, home_txid = txid_current() WHERE a.merchant = merchant AND a.home_ev IS NULL;
  RETURN CASE WHEN FOUND THEN v_ev END;
END
$cdc$
""")


def send_away(connection: Connection, merchant: str) -> int:
    """From now on nothing of the merchant is told from here; the transaction that noted it, also when it was before."""
    connection.execute("SELECT cdc.away(%s)", (merchant,))
    row = connection.execute(
        "SELECT away_txid FROM cdc.away WHERE merchant = %s AND home_ev IS NULL", (merchant,)
    ).fetchone()
    assert row is not None  # noted by the statement before
    return int(row[0])


def bring_home(connection: Connection, merchant: str) -> None:
    """From now on what happens to the merchant here is told; changes nothing for one who is not away."""
    connection.execute("SELECT cdc.home(%s)", (merchant,))


def merchants(connection: Connection) -> list[str]:
    """Who is away now, or as the transaction that this is called in sees it."""
    rows = connection.execute("SELECT merchant FROM cdc.away WHERE home_ev IS NULL ORDER BY 1").fetchall()
    return [row[0] for row in rows]


def intervals(rows: Sequence[Any] | None) -> Intervals:
    """The rows of `INTERVALS` by merchant."""
    found: dict[str, list[tuple[int, int | None]]] = {}
    for merchant, away_ev, home_ev in rows or ():
        found.setdefault(merchant, []).append((away_ev, home_ev))
    return found


INTERVALS = "(SELECT json_agg(json_build_array(merchant, away_ev, home_ev)) FROM cdc.away)"
"""All intervals there are, as one value."""


def is_away(known: Intervals, merchant: str, ev: int) -> bool:
    """True when the merchant's event `ev` is not to be told."""
    return any(
        away_ev < ev and (home_ev is None or ev < home_ev) for away_ev, home_ev in known.get(merchant, ())
    )


def forget(connection: Connection) -> None:
    """Drop the intervals that no batch to come can have an event of: they ended before all that the next one begins with.

    A source without traffic has no further tick, and keeps them until it has some: that costs nothing.
    """
    connection.execute(_FORGET)


_FORGET = """
DELETE FROM cdc.away WHERE home_txid < (
  SELECT txid_snapshot_xmin(t.tick_snapshot) FROM pgq.queue q
  JOIN pgq.subscription s ON s.sub_queue = q.queue_id
  JOIN pgq.consumer c ON c.co_id = s.sub_consumer
  JOIN pgq.tick t ON t.tick_queue = q.queue_id AND t.tick_id = s.sub_last_tick
  WHERE q.queue_name = 'cdc' AND c.co_name = 'relay')
"""
