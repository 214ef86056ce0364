"""Sweeps as a source sends them: what it wrote of a type at a lower version is gone, in every partition and both topics."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.capture.outlet import Outlet
from pipeline.capture.publisher import Publisher
from pipeline.control.snapshots import Snapshot
from pipeline.domain.sweep import Sweep, Why, encode_sweep
from pipeline.domain.table import Table
from pipeline.domain.version import EVENT, pack


def publish(publisher: Publisher, outlet: Outlet, sweep: Sweep) -> None:
    """Hand it over for every partition of changes and of snapshot rows, behind whatever went there before."""
    value = encode_sweep(sweep)
    for topic in (outlet.datastream, outlet.snapshots):
        publisher.broadcast(topic, value)


def of_truncate(source: str, table: str, type: str, generation: int, ev: int) -> Sweep:
    """The whole table was emptied by the event `ev`: what came before it is gone, whatever comes after it stays."""
    id = f"{source}:{type}:{generation}:{ev}"
    return _sweep(id, source, table, type, None, generation, ev, "truncate")


def of_snapshot(
    snapshot: Snapshot, table: Table, replaced: Iterable[Table], generation: int, first_ev: int
) -> list[Sweep]:
    """What a snapshot that has brought every row of `table` ends: rows that still have a version below its first mark.

    A merchant that has moved here leaves rows at the source it came from: `replaced` are that source's tables. A
    snapshot that began again is known by its generation: its sweep is another one.
    """

    def sweep(source: str, name: str, why: Why) -> Sweep:
        id = f"{source}:{table.type}:snapshot:{snapshot.id}:{generation}"
        return _sweep(id, source, name, table.type, snapshot.merchant, generation, first_ev, why)

    own = sweep(table.source, table.name, "snapshot")
    if snapshot.replaces is None:
        return [own]
    there = {each.type: each.name for each in replaced}
    return [own, sweep(snapshot.replaces, there.get(table.type, table.name), "move")]


def _sweep(
    id: str, source: str, table: str, type: str, merchant: str | None, generation: int, ev: int, why: Why
) -> Sweep:
    version = str(pack(generation, ev, EVENT))
    return Sweep(
        e=1, op="sweep", id=id, src=source, table=table, type=type, merchant=merchant, ver=version, why=why
    )
