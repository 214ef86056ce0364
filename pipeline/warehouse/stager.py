"""Staging: a turn becomes parts in S3 and rows in the control database, and only then counts as accepted."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from pipeline.consumer import SinkUnavailableError, Turn
from pipeline.control import parts, tables
from pipeline.control.database import ControlDatabase
from pipeline.control.parts import Part
from pipeline.domain.table import by_type
from pipeline.errors import TransientError
from pipeline.failpoints import passes
from pipeline.storage import Bucket
from pipeline.warehouse.files import PartFile, part_file
from pipeline.warehouse.rows import Pick, Rows, RowWriter, fold
from pipeline.warehouse.types import sink_table


def _now() -> datetime:
    return datetime.now(UTC)


class Stager:
    """The handler of the warehouse consumer. Holds nothing between turns but the tables' definitions."""

    def __init__(
        self,
        deployment: str,
        database: ControlDatabase,
        bucket: Bucket,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._deployment = deployment
        self._database = database
        self._bucket = bucket
        self._clock = clock
        self._writers: dict[str, RowWriter] = {}
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, turn: Turn) -> None:
        """Accept the whole turn, or raise SinkUnavailableError and accept nothing."""
        picks = fold(turn)
        try:
            self._learn(picks)
            self._stage([part for type_, found in picks.items() for part in self._parts(type_, found)])
        except SinkUnavailableError:
            raise
        except TransientError as error:
            raise SinkUnavailableError(error.what, hint=error.hint) from error
        for lane in turn:
            lane.done()

    def _learn(self, picks: dict[str, list[Pick]]) -> None:
        """Read the definitions again whenever an event shows a type or schema not seen before."""
        schemas = {(pick.event.type, pick.event.schema) for found in picks.values() for pick in found}
        if schemas <= self._seen:
            return
        known = by_type(tables.load(self._database))
        self._writers = {type_: RowWriter(sink_table(table)) for type_, table in known.items()}
        self._seen |= {schema for schema in schemas if schema[0] in known}

    def _parts(self, type_: str, picks: list[Pick]) -> Iterable[tuple[Part, PartFile]]:
        """The part of one type: none when all its events were set aside."""
        writer = self._writers.get(type_)
        if writer is None:
            for pick in picks:
                pick.reject(f"no captured table has type {type_[:63]}")
            return
        rows = writer.rows(picks)
        if rows is not None:
            file = part_file(rows.columns)
            yield self._part(writer, rows, file), file

    def _part(self, writer: RowWriter, rows: Rows, file: PartFile) -> Part:
        identity = uuid.uuid4()
        day = self._clock().strftime("%Y-%m-%d")
        return Part(
            id=identity,
            type=writer.table.type,
            shape=writer.table.shape,
            marker=file.marker,
            location=f"parts/{self._deployment}/{writer.table.type}/{day}/{identity}.csv.zst",
            rows=file.rows,
            bytes=len(file.content),
            lowest_version=min(rows.versions),
            highest_version=max(rows.versions),
        )

    def _stage(self, staged: list[tuple[Part, PartFile]]) -> None:
        if not staged:
            return
        self._bucket.put({part.location: file.content for part, file in staged})
        passes("warehouse.uploaded")
        parts.insert(self._database, [part for part, _ in staged])
        passes("warehouse.staged")
