"""Verify: marks and snapshots in the sources, wait until they have arrived, then compare type by type.

The snapshots stay open until the end, so a shortlisted merchant is read again exactly as it was summed up.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import msgspec
from elasticsearch import Elasticsearch

from pipeline.bridge import progress
from pipeline.capture import marks, queue, rows
from pipeline.capture.image import split
from pipeline.capture.session import Connection, session
from pipeline.control import detached, placements, rejected, sweeps, tables
from pipeline.control.database import ControlDatabase
from pipeline.control.parts import load_states
from pipeline.domain.canonical import digest
from pipeline.domain.routing import encode_key, merchant_of_lane
from pipeline.domain.table import Table, by_type
from pipeline.domain.version import SNAPSHOT, Version, pack
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.search import reader as search_reader
from pipeline.settings import Settings
from pipeline.verify.compare import Comparison, SinkRow, SourceRow, Sums
from pipeline.verify.table import Sink, compare_type
from pipeline.warehouse import reader as warehouse_reader

_PAUSE = 0.1  # seconds between two looks at something that must come to rest
Tell = Callable[[str], None]


class NotSettledError(PipelineError):
    """What the snapshot saw has not arrived in the sinks in time; nothing was compared."""


@dataclass(frozen=True, slots=True)
class Report:
    """What verify found: per (type, sink) the comparison; per source what only a snapshot can mend.

    ``moving`` are merchants on their way between sources: what sinks hold of them may come from either, so they were left out.
    ``held`` are those whose lanes are paused or parked: left out as well, what has not arrived there cannot be compared.
    """

    comparisons: Mapping[tuple[str, str], Comparison]
    notices: Sequence[str]
    unreadable: int
    moving: Sequence[str] = ()
    held: Sequence[str] = ()

    @property
    def clean(self) -> bool:
        """True when every sink equals the sources, with nobody held."""
        differences = any(one.differences for one in self.comparisons.values())
        return not self.notices and not self.held and not differences


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One source held still: a REPEATABLE READ transaction, and the highest version that it can have seen whole."""

    source: str
    connection: Connection
    tables: Mapping[str, Table]
    seen: str
    bound: Version


class Verification:
    """One run of verify; `deadline` seconds for everything to come to rest."""

    def __init__(
        self, settings: Settings, database: ControlDatabase, search: Elasticsearch, timeout: float, tell: Tell
    ) -> None:
        self._settings = settings
        self._database = database
        self._search = search
        self._deadline = time.monotonic() + timeout
        self._tell = tell
        captured = tables.load(database)
        if not captured:
            raise ConfigurationError(("no table is captured; run: pipeline capture install SOURCE",))
        self._types = by_type(captured)
        self._captured = captured

    def run(self, source: str | None, type_: str | None, merchant: str | None) -> Report:
        """Compare what is asked for; NotSettledError when it does not come to rest in time."""
        chosen = [one for one in self._captured if source in (None, one.source) and type_ in (None, one.type)]
        if not chosen:
            raise ConfigurationError(
                (f"no captured table has source {source or 'any'} and type {type_ or 'any'}",)
            )
        by_source: dict[str, dict[str, Table]] = defaultdict(dict)
        for table in chosen:
            by_source[table.source][table.type] = table
        moving = self._moving()
        with ExitStack() as stack:
            snapshots = [
                stack.enter_context(self._snapshot(name, found)) for name, found in sorted(by_source.items())
            ]
            held = self._settle(snapshots, merchant)
            types = sorted({table.type for table in chosen})
            moving |= self._moving()
            report = self._compare(snapshots, types, merchant, moving | held, everywhere=source is None)
        return replace(report, moving=sorted(moving), held=sorted(held - moving))

    def _moving(self) -> set[str]:
        return {placement.merchant for placement in placements.under_way(self._database)}

    def _held(self, merchant: str | None) -> set[str]:
        """Merchants, or the one that is asked for, of whose lanes to a sink one is paused or parked."""
        of = partial(detached.rows, self._database, states=["paused", "parked"])
        held = {merchant_of_lane(row.lane) for consumer in self._sinks() for row in of(consumer)}
        return held if merchant is None else held & {merchant}

    @contextmanager
    def _snapshot(self, name: str, found: Mapping[str, Table]) -> Iterator[_Snapshot]:
        """Mark B, then a snapshot S with xmin(S) above the mark: nothing S cannot see has an ev_id up to B."""
        self._tell(f"{name}: taking a snapshot")
        url = self._settings.source_url(name)
        with session(url) as marker, session(url) as connection:
            mark = marks.take_mark(marker)
            while True:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                seen, xmin = _one(
                    connection,
                    "SELECT txid_current_snapshot()::text, txid_snapshot_xmin(txid_current_snapshot())",
                )
                if xmin > mark.txid:
                    break
                connection.execute("ROLLBACK")
                self._wait(
                    f"{name}: a transaction older than the snapshot still runs: {rows.oldest_writer(marker)}"
                )
            queue.nudge(marker)
            yield _Snapshot(name, connection, found, seen, pack(mark.generation, mark.ev, SNAPSHOT, 3))
            connection.execute("ROLLBACK")

    def _settle(self, snapshots: Sequence[_Snapshot], merchant: str | None) -> set[str]:
        """Everything the snapshots see is published, accepted by both sinks, and visible there, save of whom this returns."""
        for snapshot in snapshots:
            self._tell(f"{snapshot.source}: waiting until the relay has published it")
            with session(self._settings.source_url(snapshot.source)) as connection:
                while not queue.last_tick_covers(connection, snapshot.seen):
                    self._wait(f"{snapshot.source}: the relay has not published what the snapshot sees")
        ends = {name: progress.end_offsets(self._settings, name) for name in self._sinks()}
        held = self._held(merchant)
        for consumer, bounds in ends.items():
            self._tell(f"{consumer}: waiting until it has accepted everything")
            while hindrance := progress.hindrance(
                self._settings, consumer, bounds, merchant=merchant, stopped_count=False
            ):
                self._wait(hindrance)
                held |= self._held(merchant)
            held |= self._held(merchant)
        # A sweep of the warehouse waits for the loads of what came before it.
        if "warehouse" in self._sinks():
            self._await_loads()
        for consumer in self._sinks():
            self._await_sweeps(consumer)
        return held

    def _await_loads(self) -> None:
        """No part that is staged now waits any more; parts staged later do not matter."""
        self._tell("warehouse: waiting until every part is loaded")
        began = time.monotonic()
        while True:
            states = load_states(self._database)
            failed = [f"{state.type}: {state.error}" for state in states if state.status == "failed"]
            if failed:
                raise NotSettledError(
                    f"loads have failed: {'; '.join(failed)}", hint="run: pipeline warehouse load TYPE"
                )
            if all(state.oldest_seconds < time.monotonic() - began for state in states):
                return
            self._wait("parts wait to be loaded")

    def _await_sweeps(self, consumer: str) -> None:
        """No sweep that the sink could run now waits any more; those that come later do not matter."""
        self._tell(f"{consumer}: waiting until every sweep is carried out")
        topics = self._settings.topics_of(consumer)
        wanted = {order.id for order in sweeps.due(self._database, consumer, topics)}
        while wanted := wanted & {order.id for order in sweeps.due(self._database, consumer, topics)}:
            self._wait(f"{consumer} has not carried out {len(wanted)} sweeps")

    def _sinks(self) -> list[str]:
        return [name for name in ("search", "warehouse") if name in self._settings.configuration.consumers]

    def _wait(self, reason: str) -> None:
        if time.monotonic() > self._deadline:
            raise NotSettledError(
                f"not settled: {reason}", hint="see pipeline status; a longer --timeout may do"
            )
        time.sleep(_PAUSE)

    def _compare(
        self,
        snapshots: Sequence[_Snapshot],
        types: Sequence[str],
        merchant: str | None,
        without: Collection[str],
        *,
        everywhere: bool,
    ) -> Report:
        source = _SourceReader(snapshots, without)
        bounds = {snapshot.source: snapshot.bound for snapshot in snapshots}
        sinks = [self._sink(name, bounds, without, everywhere) for name in self._sinks()]
        comparisons = {}
        for type_ in types:
            self._tell(f"{type_}: comparing")
            source_sums = Sums()
            for row in source(type_, merchant):
                source_sums.add(row.merchant, row.digest)
            for sink in sinks:
                comparisons[type_, sink.name] = compare_type(type_, source, source_sums, sink, merchant)
        return Report(comparisons, self._notices(snapshots), self._unreadable())

    def _sink(
        self, name: str, bounds: Mapping[str, Version], without: Collection[str], everywhere: bool
    ) -> Sink:
        def ours(source: str, merchant: str) -> bool:
            return (everywhere or source in bounds or not source) and merchant not in without

        def changed(source: str, version: int) -> bool:
            return version > bounds.get(source, 0) if source else False

        def search(type_: str, merchant: str | None) -> Iterator[SinkRow]:
            table = self._types[type_]
            for row in search_reader.scan(self._search, self._settings.deployment, type_, merchant):
                if ours(row.source, row.merchant):
                    image = 0 if row.deleted else digest(table, row.key, row.row)
                    yield SinkRow(row.merchant, row.key, changed(row.source, row.version), row.deleted, image)

        def warehouse(type_: str, merchant: str | None) -> Iterator[SinkRow]:
            table = self._types[type_]
            for row in warehouse_reader.scan(self._settings, self._database, type_, merchant):
                if ours(row.source, row.merchant):
                    image = 0 if row.deleted else digest(table, row.key, row.row, row.flags)
                    newer = changed(row.source, row.version)
                    yield SinkRow(row.merchant, row.key, newer, row.deleted, image, row.flags)

        aside = {
            (event.type, event.merchant, event.key)
            for event in rejected.listed(self._database, name, limit=100_000)
            if event.type and event.merchant and event.key
        }
        return Sink(name, search if name == "search" else warehouse, aside)

    def _notices(self, snapshots: Sequence[_Snapshot]) -> list[str]:
        found = []
        for snapshot in snapshots:
            with session(self._settings.source_url(snapshot.source)) as connection:
                found += [
                    f"{snapshot.source} {notice.table}: {notice.reason} at {notice.at:%Y-%m-%d %H:%M:%S} UTC, "
                    f"snapshot needed; run: pipeline capture snapshot {snapshot.source}"
                    for notice in queue.notices(connection)
                ]
        return found

    def _unreadable(self) -> int:
        return sum(
            event.key is None
            for name in self._sinks()
            for event in rejected.listed(self._database, name, limit=100_000)
        )


class _SourceReader:
    """Reads rows under the snapshots, by the same expression as the triggers."""

    def __init__(self, snapshots: Sequence[_Snapshot], moving: Collection[str]) -> None:
        self._snapshots = snapshots
        self._moving = moving

    def __call__(self, type_: str, merchant: str | None) -> Iterator[SourceRow]:
        for snapshot in self._snapshots:
            table = snapshot.tables.get(type_)
            if table is not None:
                for row in rows.read_rows(snapshot.connection, table, merchant):
                    if row.merchant in self._moving:
                        continue
                    key = encode_key(msgspec.json.decode(row.key))
                    image = msgspec.json.decode(split(row.image)[0])
                    without = partial(digest, table, key, image)
                    yield SourceRow(row.merchant, key, digest(table, key, image), without)


def _one(connection: Connection, query: str) -> tuple[str, int]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None  # a SELECT without FROM yields one row
    return row[0], row[1]
