"""From a queue row to the record on the topic, by splicing text: row images are never parsed on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import structlog

from pipeline.capture import emit, image, oversize
from pipeline.capture.marks import Mark
from pipeline.capture.queue import Batch, Event
from pipeline.capture.rows import SourceRow
from pipeline.domain.event import ENVELOPE_VERSION
from pipeline.domain.table import Table
from pipeline.domain.version import EVENT, SNAPSHOT, pack
from pipeline.errors import PermanentError


class UnknownTableError(PermanentError):
    """An event of a table of which nothing is known."""


@dataclass(frozen=True, slots=True)
class _Words:
    """What is the same in every envelope of one table, as JSON."""

    name: str
    origin: str
    schema: str
    nests: bool
    type: str


class Envelopes:
    """Writes the envelopes of one source's tables: exactly `pipeline.domain.event.Event` as JSON."""

    def __init__(self, source: str, tables: Iterable[Table]) -> None:
        self._source = _json(source)
        self._words = {table.name: _words(source, table) for table in tables}

    def change(self, event: Event, batch: Batch, pub_ms: int) -> bytes | None:
        """The envelope of one change; None when it has no image, or a key that fits no record."""
        if event.op == emit.OPERATION:
            return self._domain_event(event, batch, pub_ms)
        if event.after is None and event.op != "d":
            return None
        op, sub = ("u", 1) if event.op == "u1" else (event.op, 0)
        words = self._of(event.table)
        version = pack(batch.generation, event.ev, EVENT, sub)
        head = (
            f'{{"e":{ENVELOPE_VERSION},"op":"{op}",{words.origin},"key":{event.key},"merchant":"{event.merchant}",'
            f'"ver":"{version}","gen":{batch.generation},"ev":{event.ev},"sub":{sub},"txid":{event.txid},'
            f'"tick":{batch.tick},"ts_ms":{event.ts_ms},"pub_ms":{pub_ms},"schema":"{words.schema}"'
        )
        return _record(words, head, event.key, event.before or "null", event.after or "null")

    def _domain_event(self, event: Event, batch: Batch, pub_ms: int) -> bytes:
        version = pack(batch.generation, event.ev, EVENT)
        return (
            f'{{"e":{ENVELOPE_VERSION},"op":"{event.op}","src":{self._source},"table":"{event.table}",'
            f'"type":"{event.key}","key":{{}},"merchant":"{event.merchant}",'
            f'"ver":"{version}","gen":{batch.generation},"ev":{event.ev},"sub":0,"txid":{event.txid},'
            f'"tick":{batch.tick},"ts_ms":{event.ts_ms},"pub_ms":{pub_ms},"schema":"",'
            f'"before":null,"after":{event.after}}}'
        ).encode()

    def type_of(self, table: str) -> str:
        """A table's type; UnknownTableError when nothing is known of the table."""
        return self._of(table).type

    def row(
        self, table: str, row: SourceRow, mark: Mark, tick: int, read_ms: int, pub_ms: int
    ) -> bytes | None:
        """The envelope of one snapshot row: it wins against every change it shows, and loses against all others.

        None when its key fits no record.
        """
        words = self._of(table)
        version = pack(mark.generation, mark.ev, SNAPSHOT)
        head = (
            f'{{"e":{ENVELOPE_VERSION},"op":"r",{words.origin},"key":{row.key},"merchant":"{row.merchant}",'
            f'"ver":"{version}","gen":{mark.generation},"ev":{mark.ev},"sub":0,"txid":{mark.txid},'
            f'"tick":{tick},"ts_ms":{read_ms},"pub_ms":{pub_ms},"schema":"{words.schema}"'
        )
        return _record(words, head, row.key, "null", row.image)

    def _of(self, table: str) -> _Words:
        words = self._words.get(table)
        if words is None:
            raise UnknownTableError(
                f'an event of table "{table}", which the control database does not know',
                hint="run: pipeline capture install SOURCE",
            )
        return words


def _words(source: str, table: Table) -> _Words:
    origin = f'"src":{_json(source)},"table":{_json(table.name)},"type":{_json(table.type)}'
    return _Words(table.name, origin, table.shape, image.may_nest(table), table.type)


def _record(words: _Words, head: str, key: str, before: str, after: str) -> bytes | None:
    before, cut_before = image.split(before)
    after, cut_after = image.split(after)
    if words.nests:
        if oversize.is_deep(before):
            before, cut_before = "null", None
        if oversize.is_deep(after):
            after, cut_after = oversize.shallow(words.name, key, after, cut_after)
    cut = cut_before if after == "null" else cut_after
    value = _joined(head, before, after, cut)
    if len(value) <= oversize.IMAGE_LIMIT:  # so the new row alone is below it, too
        return value
    room = oversize.LIMIT - len(head.encode())
    if after == "null":  # a delete's cut describes its old row, and goes with it
        cut = None
    value = _joined(head, *oversize.fit(words.name, key, before, after, cut, room))
    if len(value) <= oversize.LIMIT:
        return value
    structlog.get_logger().error(
        "a key too large to publish", table=words.name, bytes=len(key.encode()), begins=key[:200]
    )
    return None


def _joined(head: str, before: str, after: str, cut: str | None) -> bytes:
    described = f',"cut":{cut}' if cut is not None else ""
    return f'{head}{described},"before":{before},"after":{after}}}'.encode()


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()
