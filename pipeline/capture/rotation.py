"""Rotation of the queue's tables: they are emptied by TRUNCATE in turn, so a queue never needs a vacuum.

PgQ's step 2 declares the switch complete. Done too early, a transaction whose snapshot is older than step 1 would
still write into the table that is emptied next; so it waits for the last such snapshot to end.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.capture.queue import CONSUMER, QUEUE
from pipeline.capture.session import Connection
from pipeline.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Rotation:
    """How long the rotation is overdue, in seconds, and what stands in its way; "" when nothing does."""

    overdue_seconds: float
    blocked_by: str


def maintain(connection: Connection) -> None:
    """One round: switch tables when due and when every consumer is past the table to be emptied; complete a switch."""
    connection.execute("SELECT pgq.maint_rotate_tables_step1(%s)", (QUEUE,))
    connection.execute(_COMPLETE, (QUEUE,))


# age() counts from the next transaction id on, the snapshot's xmax from the last completed one: the comparison can only
# err towards waiting. 32-bit ages of two living transactions compare correctly across a wraparound.
_COMPLETE = """
UPDATE pgq.queue SET queue_switch_step2 = txid_current()
WHERE queue_name = %s AND queue_switch_step2 IS NULL AND NOT EXISTS (
  SELECT FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL
    AND age(backend_xmin) >= txid_snapshot_xmax(txid_current_snapshot()) - queue_switch_step1)
"""


def rotation(connection: Connection) -> Rotation:
    """Whether the rotation is late, and who is in its way: transactions and consumers older than the last switch."""
    row = connection.execute(_STATE, {"queue": QUEUE, "consumer": CONSUMER}).fetchone()
    if row is None:
        raise PermanentError("capture is not installed", hint="run: pipeline capture install SOURCE")
    overdue, transactions, consumers = row
    return Rotation(max(0.0, overdue), "; ".join(transactions or consumers) if overdue > 0 else "")


# Nobody's statements are quoted: they may hold rows. Transactions of other databases count when they write: ids
# come from one sequence, and the tick of a consumer that is past the switch has to be past them. A consumer blocks while its last tick does not see the last switch,
# which may be an old transaction's fault.
_STATE = """
SELECT extract(epoch FROM clock_timestamp() - q.queue_switch_time - q.queue_rotation_period)::float8,
  ARRAY(
    SELECT format('session %%s of %%s (%%s)%%s, %%s since %%s', a.pid, a.usename, coalesce(nullif(a.application_name, ''), '-'),
             ' in database ' || nullif(a.datname, current_database()), a.state, date_trunc('second', a.xact_start))
    FROM pg_stat_activity a
    WHERE a.datname IS NOT NULL AND a.pid <> pg_backend_pid()
      AND greatest(CASE WHEN a.datname = current_database() THEN age(a.backend_xmin) END, age(a.backend_xid))
        >= txid_snapshot_xmax(txid_current_snapshot()) - coalesce(q.queue_switch_step2, q.queue_switch_step1)
    ORDER BY a.datname <> current_database(), a.xact_start LIMIT 3
  ) || ARRAY(
    SELECT format('prepared transaction %%s of %%s%%s since %%s', p.gid, p.owner,
             ' in database ' || nullif(p.database, current_database()), date_trunc('second', p.prepared))
    FROM pg_prepared_xacts p
    WHERE age(p.transaction) >= txid_snapshot_xmax(txid_current_snapshot())
        - coalesce(q.queue_switch_step2, q.queue_switch_step1)
    ORDER BY p.database <> current_database(), p.prepared LIMIT 3
  ), ARRAY(
    SELECT CASE c.co_name WHEN %(consumer)s THEN 'the relay, which is behind' ELSE format('consumer %%s', c.co_name) END
    FROM pgq.subscription s JOIN pgq.consumer c ON c.co_id = s.sub_consumer
      JOIN pgq.tick t ON t.tick_queue = s.sub_queue AND t.tick_id = s.sub_last_tick
    WHERE s.sub_queue = q.queue_id AND txid_snapshot_xmin(t.tick_snapshot) <= q.queue_switch_step2
    ORDER BY c.co_name LIMIT 3
  )
FROM pgq.queue q WHERE q.queue_name = %(queue)s
"""
