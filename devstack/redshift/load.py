"""COPY: the manifest's files, converted, into PostgreSQL's COPY on the client's own session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from devstack.redshift import faults, manifest
from devstack.redshift.backend import Backend, PostgresAddress
from devstack.redshift.conversions import BadValue
from devstack.redshift.convert import Column, Converter, Options
from devstack.redshift.csv_rows import BadQuotes, Chunk, chunks
from devstack.redshift.errors import ConnectionCut, SqlError
from devstack.redshift.plans import CopyFromS3
from devstack.redshift.tokens import Name

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_COLUMNS = sql.SQL(
    """
    SELECT a.attname, t.typname, a.atttypmod, a.attnotnull, a.attrelid::int,
           (SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c
             WHERE c.conrelid = a.attrelid AND c.contype = 'c' AND c.conkey = ARRAY[a.attnum]),
           nextval('stand_in.query_id')
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = {table}::regclass AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attnum
    """
)
_REMEMBER = sql.SQL(
    "SELECT set_config('stand_in.copied', {}, false), set_config('stand_in.copy_id', {}, false)"
)
_LOAD_ERROR = """
    INSERT INTO stand_in.load_errors (tbl, query, session, filename, line_number, colname, type, col_length,
                                      raw_line, raw_field_value, err_code, err_reason)
    VALUES (%(tbl)s, %(query)s, %(session)s, %(filename)s, %(line)s, %(colname)s, %(type)s, %(col_length)s,
            %(raw_line)s, %(raw_value)s, %(err_code)s, %(reason)s)
"""
_UNKNOWN_ERROR = 1200
_RAW = 1024


class LoadFailed(SqlError):
    """One row that COPY refuses, as STL_LOAD_ERRORS describes it."""

    def __init__(self, code: int, reason: str, filename: str = "", line: int = 0) -> None:
        super().__init__(reason, "XX000")
        self.details: dict[str, str | int] = dict.fromkeys(("colname", "type", "col_length", "raw_line"), "")
        self.details |= {
            "raw_value": "",
            "err_code": code,
            "reason": reason,
            "filename": filename,
            "line": line,
        }

    def at_row(self, row: list[str]) -> LoadFailed:
        """Add the line the row was read from, as near as it can be written again."""
        self.details["raw_line"] = _printable(",".join(row))
        return self

    def in_column(self, column: Column, value: str) -> LoadFailed:
        """Add the column and its value."""
        length = column.max_bytes or (column.modifier >> 16 if column.type == "numeric" else 0)
        self.details |= {"colname": column.name, "type": column.redshift_type, "col_length": str(length)}
        self.details["raw_value"] = _printable(value)
        return self


@dataclass(slots=True)
class Target:
    """The table as the catalog has it, and the number of this COPY."""

    oid: int
    query: int
    columns: list[Column]


@dataclass(slots=True)
class Copy:
    """One COPY in progress; `rows` counts what was handed to PostgreSQL."""

    plan: CopyFromS3
    s3: S3Client
    state: Path
    rows: int = 0
    converters: list[Converter] = field(default_factory=list)

    async def run(self, backend: Backend, address: PostgresAddress, database: str) -> int:
        """Load; returns the number of rows. Raises SqlError, after recording a load error out of the
        transaction so that it survives the rollback."""
        target = await find_target(backend, self.plan.table, self.plan.columns)
        options = Options(self.plan.null, self.plan.round_decimals, self.plan.any_timestamp)
        self.converters = [Converter(column, options) for column in target.columns]
        try:
            await self._into_postgres(backend, target)
        except LoadFailed as failed:
            await _record(failed, target, backend.pid, address, database)
            table = self.plan.table[-1]
            words = f"Load into table '{table}' failed.  Check 'stl_load_errors' system table for details."
            raise SqlError(words, "XX000") from failed
        await backend.query(_REMEMBER.format(str(self.rows), str(target.query)).as_string())
        return self.rows

    async def _into_postgres(self, backend: Backend, target: Target) -> None:
        table, columns = (
            sql.Identifier(*self.plan.table),
            map(sql.Identifier, [c.name for c in target.columns]),
        )
        statement = sql.SQL("COPY {} ({}) FROM STDIN (NULL {})").format(
            table, sql.SQL(", ").join(columns), self.plan.null
        )
        try:
            await backend.query(statement.as_string(), self._feed(target))
        except SqlError as error:
            if error.code.startswith("22"):  # a value that slipped past our conversion
                raise LoadFailed(_UNKNOWN_ERROR, error.message) from error
            raise

    async def _feed(self, target: Target) -> AsyncIterator[bytes]:
        """Convert in a thread, a chunk at a time."""
        source = self._converted(target)
        while (chunk := await asyncio.to_thread(next, source, None)) is not None:
            yield chunk
            if faults.take(self.state, faults.KILL_DURING_COPY):
                raise ConnectionCut

    def _converted(self, target: Target) -> Iterator[bytes]:
        for part in manifest.parts(self.s3, self.plan.manifest, zstd=self.plan.zstd):
            try:
                for chunk in chunks(part.content):
                    yield from self._chunk(chunk, part.url, target)
            except BadQuotes as error:
                words = "Invalid quote formatting for CSV. Unescaped quote character"
                raise LoadFailed(1216, words, part.url, error.line) from error

    def _chunk(self, chunk: Chunk, url: str, target: Target) -> Iterator[bytes]:
        misfit = _first_misfit(chunk.rows, len(target.columns))
        rows = chunk.rows if misfit is None else chunk.rows[:misfit]
        if rows:
            yield self._lines(Chunk(chunk.first_line, rows), url, target)
            self.rows += len(rows)
        if misfit is not None:
            raise _wrong_count(chunk, misfit, url, len(target.columns))

    def _lines(self, chunk: Chunk, url: str, target: Target) -> bytes:
        converted: list[Sequence[str]] = []
        failures: list[tuple[int, int, BadValue]] = []
        for position, values in enumerate(zip(*chunk.rows, strict=True)):
            try:
                converted.append(self.converters[position].convert(values))
            except BadValue as bad:
                failures.append((bad.index, position, bad))
        if failures:
            index, position, first = min(failures, key=lambda failure: failure[:2])
            row = chunk.rows[index]
            failed = LoadFailed(first.code, first.reason, url, chunk.line(index)).at_row(row)
            raise failed.in_column(target.columns[position], row[position])
        return ("\n".join(map("\t".join, zip(*converted, strict=True))) + "\n").encode()


async def find_target(backend: Backend, table: Name, wanted: tuple[str, ...]) -> Target:
    """The table's columns in the order COPY names them (all, when it names none)."""
    literal = sql.Identifier(*table).as_string()
    rows = await backend.query(_COLUMNS.format(table=literal).as_string())
    columns = {column.name: column for column in map(_column, rows)}
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise SqlError(f'column "{missing[0]}" of relation "{table[-1]}" does not exist', "42703")
    first = rows[0]
    return Target(int(first[4] or 0), int(first[6] or 0), [columns[name] for name in wanted or columns])


def _column(row: list[str | None]) -> Column:
    name, kind, modifier, not_null, _oid, check, _query = row
    limit = re.search(r"<= (\d+)", check or "")
    max_bytes = int(limit[1]) if limit else None
    return Column(name or "", kind or "", int(modifier or -1), not_null == "t", max_bytes)


def _first_misfit(rows: list[list[str]], expected: int) -> int | None:
    if set(map(len, rows)) == {expected}:
        return None
    return next(index for index, row in enumerate(rows) if len(row) != expected)


def _wrong_count(chunk: Chunk, index: int, url: str, expected: int) -> LoadFailed:
    row = chunk.rows[index]
    if len(row) > expected:
        code, reason = 1202, "Extra column(s) found"
    elif len(row) <= 1:
        code, reason = 1214, "Delimiter not found"
    else:
        code, reason = 1203, "Input data had fewer columns than were defined in the DDL"
    return LoadFailed(code, reason, url, chunk.line(index)).at_row(row)


async def _record(
    failed: LoadFailed, target: Target, session: int, address: PostgresAddress, database: str
) -> None:
    values = {**failed.details, "tbl": target.oid, "query": target.query, "session": session}
    connection = await psycopg.AsyncConnection.connect(
        host=address.directory,
        port=address.port,
        user=address.user,
        password=address.password,
        dbname=database,
        autocommit=True,
    )
    async with connection:
        await connection.execute(_LOAD_ERROR, values)


def _printable(value: str) -> str:
    return value[:_RAW].encode("utf-8", "replace").decode().replace("\0", "?")
