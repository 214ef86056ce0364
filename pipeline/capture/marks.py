"""Marks: bounds in the order of events, under which rows can be read beside live writes and compared with them."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.pq import TransactionStatus

from pipeline.capture.queue import QUEUE
from pipeline.capture.session import Connection
from pipeline.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Mark:
    """A bound: whatever a snapshot with xmin above ``txid`` cannot see has an ev_id above ``ev``."""

    ev: int
    txid: int
    generation: int


def take_mark(connection: Connection) -> Mark:
    """Take a mark; the session must be outside of a transaction.

    Three steps that must stay in this order: draw the ev_id, then get a transaction id, then commit it durably.
    Older marks than the newest that is valid by now can never be the better choice again and are deleted.
    """
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("a mark is taken outside of any transaction")
    drawn = connection.execute(
        "SELECT nextval(queue_event_seq::regclass) FROM pgq.queue WHERE queue_name = %s", (QUEUE,)
    ).fetchone()
    row = drawn and connection.execute(_MARK, drawn).fetchone()
    if not drawn or not row:
        raise PermanentError("capture is not installed", hint="run: pipeline capture install SOURCE")
    connection.execute(
        "DELETE FROM cdc.marks WHERE ev_id < (SELECT max(ev_id) FROM cdc.marks"
        " WHERE txid < txid_snapshot_xmin(txid_current_snapshot()))"
    )
    return Mark(drawn[0], *row)


_MARK = """
WITH durable AS (SELECT set_config('synchronous_commit', 'on', true))
INSERT INTO cdc.marks (ev_id, generation) SELECT %s, generation FROM cdc.identity, durable RETURNING txid, generation
"""


def valid_mark(connection: Connection) -> Mark | None:
    """The newest mark that bounds the snapshot of the transaction this is called in."""
    row = connection.execute(
        "SELECT ev_id, txid, generation FROM cdc.marks WHERE txid < txid_snapshot_xmin(txid_current_snapshot())"
        " ORDER BY ev_id DESC LIMIT 1"
    ).fetchone()
    return None if row is None else Mark(*row)
