"""Rotation of the queue's tables: they are emptied by TRUNCATE in turn, so a queue never needs a vacuum.

PgQ's step 2 declares the switch complete. Done too early, a transaction whose snapshot is older than step 1 would
still write into the table that is emptied next; so it waits for the last such snapshot to end.
"""

from __future__ import annotations

from pipeline.capture.queue import QUEUE
from pipeline.capture.session import Connection


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
