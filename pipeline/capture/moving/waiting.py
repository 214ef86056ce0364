"""What a move waits for, each told in words while it lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from pipeline.capture import rows
from pipeline.capture.moving.ends import End, Ends
from pipeline.capture.queue import has_relay, last_tick_covers, nudge
from pipeline.capture.session import Connection
from pipeline.control import snapshots, sources
from pipeline.control.database import ControlDatabase
from pipeline.control.snapshots import Snapshot
from pipeline.errors import PermanentError


class Waiting:
    """Waits in both sources; `wait` is called with what for, again and again, and takes a moment each time."""

    def __init__(self, database: ControlDatabase, ends: Ends, wait: Callable[[str], None]) -> None:
        self._database = database
        self._ends = ends
        self._source, self._target = ends.source.connection, ends.target.connection
        self._wait = wait

    def for_snapshots_at_work(self, merchant: str) -> None:
        """No snapshot that tells of the merchant is at work in the source, and none begins while this move is under way."""
        name = self._ends.source.name

        def at_work() -> list[int]:
            return snapshots.at_work(self._database, name, merchant)

        self._until(lambda: not at_work(), lambda: f"snapshot {at_work()} of {name} to end")

    def for_what_is_older(self, txid: int) -> None:
        """Every transaction up to `txid` has ended in the source."""
        self._until(
            lambda: _number(self._source, _OLDEST) > txid,
            lambda: f"{rows.oldest_writer(self._source)} in {self._ends.source.name} to end",
        )

    def for_the_relay(self) -> None:
        """Everything that is committed in the source by now is published."""
        seen = _text(self._source, "SELECT txid_current_snapshot()::text")
        nudge(self._source)
        self._until(lambda: last_tick_covers(self._source, seen), lambda: _relay(self._ends.source))

    def for_a_higher_generation(self) -> None:
        """The target's relay works under a generation above the source's; it is asked to if it does not."""
        name, above = self._ends.target.name, _number(self._source, _GENERATION)
        if _number(self._target, _GENERATION) <= above:
            sources.ask_to_raise(self._database, name, above)
            self._until(lambda: self._raised(name, above), lambda: _relay(self._ends.target))
        nudge(self._target)
        works = _WORKS_ABOVE.format(above)
        self._until(lambda: _number(self._target, works) > 0, lambda: _relay(self._ends.target))

    def _raised(self, name: str, above: int) -> bool:
        if _number(self._target, _GENERATION) > above:
            return True
        known = sources.load(self._database, name)
        if known is None or known.raise_above is None:
            raise PermanentError(
                f"the relay of {name} did not raise its generation above {above}: too few are left",
                hint="see the runbook: a merchant's move is stuck",
            )
        return False

    def for_snapshot(self, request: int) -> Snapshot:
        """A snapshot is over, well or not."""

        def state() -> Snapshot:
            found = snapshots.load(self._database, request)
            if found is None:
                raise PermanentError(f"snapshot {request} is gone from the control database")
            return found

        self._until(lambda: state().finished, lambda: _at(state()))
        return state()

    def _until(self, condition: Callable[[], bool], what: Callable[[], str]) -> None:
        while not condition():
            self._wait(what())


_OLDEST = "SELECT txid_snapshot_xmin(txid_current_snapshot())"
_GENERATION = "SELECT generation FROM cdc.identity"
_WORKS_ABOVE = """
SELECT count(*) FROM cdc.progress p WHERE p.generation > {} AND p.tick <= (
  SELECT s.sub_last_tick FROM pgq.subscription s JOIN pgq.queue q ON q.queue_id = s.sub_queue
  JOIN pgq.consumer c ON c.co_id = s.sub_consumer WHERE q.queue_name = 'cdc' AND c.co_name = 'relay')
"""


def _relay(end: End) -> str:
    works = "" if has_relay(end.connection) else ", which is not running"
    return f"the relay of {end.name}{works}"


def _at(state: Snapshot) -> str:
    paused = ", paused" if state.paused else ""
    work = f"{state.rows_published:,} rows; {state.detail}" if state.status == "running" else "not begun"
    return f"snapshot {state.id} of {state.source} ({work}{paused})"


def _number(connection: Connection, query: str) -> int:
    return int(_text(connection, query))


def _text(connection: Connection, query: str) -> str:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None  # one row, or capture is not installed, which was looked at
    return cast(str, row[0])
