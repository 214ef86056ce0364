"""PgQ as the relay uses it: tick, next batch, events, finish; and what others may ask about the queue.

Events are read by our own SQL over the queue's parent table. PgQ's ``get_batch_events`` looks only into the tables it
thinks current and so loses the events of a REPEATABLE READ transaction that straddles a rotation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import sql

from pipeline.capture import disabling
from pipeline.capture.away import INTERVALS, Intervals, intervals
from pipeline.capture.insertion import QueueNames
from pipeline.capture.session import Connection
from pipeline.errors import PermanentError

QUEUE, CONSUMER = "cdc", "relay"
_ADVISORY_LOCK = 0x63646300  # "cdc": one queue per database, one relay per queue
_FETCHED = 100  # rows per fetch: a thousand would be no faster, and of giant rows too many


class Event(NamedTuple):
    """One row of the queue, as the trigger wrote it. ``op`` is c, u, d or u1 (second half of a key's or merchant's change);
    event; t or tp (TRUNCATE of a table, of one partition), without row and merchant.
    """

    ev: int
    txid: int
    op: str
    after: str | None
    table: str
    before: str | None
    merchant: str
    key: str
    ts_ms: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The transactions between two ticks.

    They are those with ``lowest`` ≤ txid < ``bound`` that ``snapshot`` sees, and the ``late`` ones: older, but still
    running at the tick before. ``running`` are those that run on. A batch that comes again comes with the ``generation``
    and the ``mark`` it had. Of merchants in ``away`` some events are not to be told.
    """

    id: int
    tick: int
    generation: int
    mark: str
    snapshot: str
    lowest: int
    bound: int
    late: Sequence[int]
    running: Sequence[int]
    away: Intervals = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the relay is behind: seconds since the last finished tick, 0 when nothing waits; events as an estimate."""

    seconds: float
    pending: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something happened to a captured table that only a snapshot can mend."""

    table: str
    reason: str
    at: datetime


class Queue:
    """The queue of one source database over one session; every method is its own transaction."""

    def __init__(self, connection: Connection) -> None:
        # A lost tick or finish only repeats a batch; next_batch alone must be durable, and flushes what went before.
        connection.execute("SET synchronous_commit = off")
        self._connection = connection
        names = queue_names(connection)
        if names is None:
            raise PermanentError("capture is not installed", hint="run: pipeline capture install SOURCE")
        self._names = names
        events = sql.Identifier(*names.events.split("."))
        # As bytes: composed anew for each round they would cost more than they say.
        sequence = sql.Identifier(*names.sequence.split("."))
        self._last_value = sql.SQL("SELECT last_value FROM {}").format(sequence).as_bytes(connection)
        self._unticked = _UNTICKED.format(events=events).as_bytes(connection)
        self._events = _EVENTS.format(events=events).as_bytes(connection)
        self._ticked = True

    @property
    def ticked(self) -> bool:
        """True when there may be a batch: after a tick, until `next_batch` has found none. Asking costs 0.3 ms of CPU."""
        return self._ticked

    @property
    def connection(self) -> Connection:
        """The session, for what happens between batches."""
        return self._connection

    def acquire(self) -> bool:
        """As the function `acquire`."""
        return acquire(self._connection)

    def last_value(self) -> int:
        """The event sequence: moves with every event, also with those of transactions that are rolled back."""
        row = self._connection.execute(self._last_value).fetchone()
        assert row is not None  # a sequence is a relation of one row
        return int(row[0])

    def unticked(self, last: Batch) -> bool:
        """True when a committed event lies outside the tick that ended `last`: it took its ev_id before that tick."""
        row = self._connection.execute(
            self._unticked, {"bound": last.bound, "running": list(last.running)}
        ).fetchone()
        return row is not None and bool(row[0])

    def tick(self) -> int:
        """Tick now; the id of the tick."""
        row = self._connection.execute("SELECT pgq.ticker(%s)", (QUEUE,)).fetchone()
        if row is None or row[0] is None:
            raise PermanentError(f"queue {QUEUE} did not tick", hint="run: pipeline capture install SOURCE")
        self._ticked = True
        return int(row[0])

    def newest_tick(self) -> int:
        """The tick taken last: whichever comes after it is taken later than now."""
        row = self._connection.execute(
            "SELECT max(tick_id) FROM pgq.tick WHERE tick_queue = %s", (self._names.id,)
        ).fetchone()
        assert row is not None  # an aggregate yields one row
        return int(row[0])

    def next_batch(self) -> Batch | None:
        """The unfinished batch, or the next one; None when there is no further tick.

        Committed with synchronous_commit = on before it returns, and with it the batch's mark. That flush covers every
        commit the batch can see, so nothing is ever published that a crash of the database could take back.
        """
        row = self._connection.execute(_NEXT_BATCH, (QUEUE, CONSUMER)).fetchone()
        if row is None:
            raise PermanentError(
                "the source has lost its identity", hint="run: pipeline capture install SOURCE"
            )
        self._ticked = row[0] is not None
        return Batch(*[*row[:-1], intervals(row[-1])]) if self._ticked else None

    def events(self, batch: Batch) -> Iterator[Event]:
        """The batch's events in order of ev_id, as a stream: memory does not grow with the batch."""
        parameters = {
            "lowest": batch.lowest,
            "bound": batch.bound,
            "snapshot": batch.snapshot,
            "late": batch.late,
        }
        with self._connection.cursor() as cursor:
            for row in cursor.stream(self._events, parameters, size=_FETCHED):
                yield Event._make(row)

    def finish(self, batch: Batch) -> bool:
        """Give the batch back as done; False when it was no longer ours."""
        row = self._connection.execute("SELECT pgq.finish_batch(%s)", (batch.id,)).fetchone()
        return row is not None and row[0] == 1

    def generation(self) -> int:
        """The source's generation now."""
        row = self._connection.execute("SELECT generation FROM cdc.identity").fetchone()
        if row is None:
            raise PermanentError(
                "the source has lost its identity", hint="run: pipeline capture install SOURCE"
            )
        return int(row[0])

    def lag(self) -> Lag:
        """As the function `lag`."""
        return lag(self._connection)

    def size(self) -> int:
        """Bytes that the queue's tables hold on the source's disk, indices included."""
        return int(_one(self._connection, _SIZE, (self._names.events,)))

    def holds_lock(self) -> bool:
        """True while this very session is the source's only relay."""
        return bool(_one(self._connection, _HOLDS_LOCK, (_ADVISORY_LOCK >> 32, _ADVISORY_LOCK & 0xFFFFFFFF)))


# set_config counts for this transaction's commit only; the LEFT JOINs keep the row when there is no batch.
_NEXT_BATCH = f"""
WITH opened AS MATERIALIZED (
  SELECT b.* FROM set_config('synchronous_commit', 'on', true), pgq.next_batch_custom(%s, %s, NULL, NULL, NULL) b
), marked AS (
  INSERT INTO cdc.progress (tick, generation, mark)
  SELECT cur_tick_id, generation, gen_random_uuid() FROM opened, cdc.identity WHERE batch_id IS NOT NULL
  ON CONFLICT (tick) DO NOTHING RETURNING generation, mark
)
SELECT b.batch_id, b.cur_tick_id, coalesce(new.generation, old.generation), coalesce(new.mark, old.mark)::text,
       cur.tick_snapshot::text, txid_snapshot_xmax(last.tick_snapshot), txid_snapshot_xmax(cur.tick_snapshot),
       ARRAY(SELECT txid_snapshot_xip(last.tick_snapshot) EXCEPT SELECT txid_snapshot_xip(cur.tick_snapshot)),
       ARRAY(SELECT txid_snapshot_xip(cur.tick_snapshot)),
       {INTERVALS}
FROM opened b
     CROSS JOIN cdc.identity i
     CROSS JOIN pgq.queue q
     LEFT JOIN marked new ON true
     LEFT JOIN cdc.progress old ON old.tick = b.cur_tick_id
     LEFT JOIN pgq.tick last ON last.tick_queue = q.queue_id AND last.tick_id = b.prev_tick_id
     LEFT JOIN pgq.tick cur ON cur.tick_queue = q.queue_id AND cur.tick_id = b.cur_tick_id
WHERE q.queue_name = 'cdc'
"""  # noqa: S608  constants only

_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(i.inhrelid)), 0)::bigint FROM pg_inherits i WHERE i.inhparent = %s::regclass
"""

_HOLDS_LOCK = """
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = %s AND objid = %s)
"""

_UNTICKED = sql.SQL("""
SELECT EXISTS (SELECT FROM {events} WHERE ev_txid >= %(bound)s)
    OR EXISTS (SELECT FROM {events} WHERE ev_txid = ANY(%(running)s))
""")

# Over the parent table, so that no rotation matters. `late` transactions lie below `lowest`: no row comes twice.
_EVENTS = sql.SQL("""
SELECT ev_id, ev_txid, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4,
       (extract(epoch FROM ev_time) * 1000)::bigint
FROM (
  SELECT * FROM {events}
    WHERE ev_txid >= %(lowest)s AND ev_txid < %(bound)s AND txid_visible_in_snapshot(ev_txid, %(snapshot)s)
  UNION ALL
  SELECT * FROM {events} WHERE ev_txid = ANY(%(late)s)
) event
ORDER BY ev_id, ev_type COLLATE "C"
""")


def queue_names(connection: Connection) -> QueueNames | None:
    """Where PgQ keeps our queue; None when there is none."""
    made = connection.execute("SELECT to_regclass('pgq.queue') IS NOT NULL").fetchone()
    if made is None or not made[0]:
        return None
    row = connection.execute(
        "SELECT queue_id, queue_data_pfx, queue_event_seq FROM pgq.queue WHERE queue_name = %s", (QUEUE,)
    ).fetchone()
    return None if row is None else QueueNames(*row)


def acquire(connection: Connection) -> bool:
    """Become this source's only relay; False while another one is. The session holds it until it ends."""
    return bool(_one(connection, "SELECT pg_try_advisory_lock(%s)", (_ADVISORY_LOCK,)))


def has_relay(connection: Connection) -> bool:
    """True while a relay, this session included, holds the source's lock."""
    return bool(_one(connection, _HAS_RELAY, (_ADVISORY_LOCK >> 32, _ADVISORY_LOCK & 0xFFFFFFFF)))


_HAS_RELAY = """
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = %s AND objid = %s)
"""


def nudge(connection: Connection) -> None:
    """Make the relay tick although nothing was written."""
    connection.execute(
        "SELECT nextval(queue_event_seq::regclass) FROM pgq.queue WHERE queue_name = %s", (QUEUE,)
    )


def last_tick_covers(connection: Connection, snapshot: str) -> bool:
    """True when every transaction that `snapshot` (``pg_current_snapshot()::text``) sees is in a finished batch.

    On a source without traffic call `nudge` once after taking the snapshot.
    """
    return bool(_one(connection, _COVERS, {"snapshot": snapshot, "queue": QUEUE, "consumer": CONSUMER}))


_COVERS = """
SELECT coalesce(bool_or(
    txid_snapshot_xmax(t.tick_snapshot) >= txid_snapshot_xmax(%(snapshot)s::txid_snapshot)
    AND NOT EXISTS (
      SELECT FROM txid_snapshot_xip(t.tick_snapshot) running
      WHERE running < txid_snapshot_xmax(%(snapshot)s::txid_snapshot)
        AND txid_visible_in_snapshot(running, %(snapshot)s::txid_snapshot))), false)
FROM pgq.queue q
JOIN pgq.subscription s ON s.sub_queue = q.queue_id
JOIN pgq.consumer c ON c.co_id = s.sub_consumer
JOIN pgq.tick t ON t.tick_queue = q.queue_id AND t.tick_id = s.sub_last_tick
WHERE q.queue_name = %(queue)s AND c.co_name = %(consumer)s
"""


def lag(connection: Connection) -> Lag:
    """How far the relay is behind."""
    row = connection.execute(
        "SELECT extract(epoch FROM clock_timestamp() - t.tick_time)::float8,"
        " pgq.seq_getval(q.queue_event_seq) - t.tick_event_seq, s.sub_batch IS NOT NULL"
        " FROM pgq.queue q JOIN pgq.subscription s ON s.sub_queue = q.queue_id"
        " JOIN pgq.consumer c ON c.co_id = s.sub_consumer"
        " JOIN pgq.tick t ON t.tick_queue = q.queue_id AND t.tick_id = s.sub_last_tick"
        " WHERE q.queue_name = %s AND c.co_name = %s",
        (QUEUE, CONSUMER),
    ).fetchone()
    if row is None:
        raise PermanentError("capture is not installed", hint="run: pipeline capture install SOURCE")
    seconds, pending, in_work = row
    return Lag(seconds if pending or in_work else 0.0, pending)


def notices(connection: Connection) -> list[Notice]:
    """What happened since the last snapshot that only a snapshot can mend, oldest first; and that nothing is captured."""
    rows = connection.execute("SELECT table_name, reason, at FROM cdc.notices ORDER BY id")
    since = disabling.read(connection)
    off = [] if since is None else [Notice("every table", str(since), since.at)]
    return [Notice(*row) for row in rows] + off


def _one(connection: Connection, query: str, parameters: Any) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    if row is None:
        raise PermanentError("capture is not installed", hint="run: pipeline capture install SOURCE")
    return row[0]
