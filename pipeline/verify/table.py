"""One captured table against one sink: checksums per merchant first, then keys of the merchants that differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from pipeline.domain.table import Table
from pipeline.verify.compare import Comparison, SinkRow, SourceRow, Sums, compare

ReadSource = Callable[[Table, str | None], Iterator[SourceRow]]
ReadSink = Callable[[Table, str | None], Iterator[SinkRow]]
_MERCHANT_BY_MERCHANT = 50  # a longer shortlist is read in one pass over the whole table


@dataclass(frozen=True, slots=True)
class Sink:
    """One sink to compare with: its consumer's name, how it is read, and its (type, merchant, key) set aside."""

    name: str
    read: ReadSink
    rejected: Collection[tuple[str, str, str]]


def compare_table(
    table: Table, source: ReadSource, source_sums: Sums, sink: Sink, bound: int, merchant: str | None
) -> Comparison:
    """Compare `table` under the snapshot with `sink`; `bound` is the highest version the snapshot can hold."""
    sink_sums = Sums()
    for row in sink.read(table, merchant):
        if not row.deleted:
            sink_sums.add(row.merchant, row.digest)
    result = Comparison(rows=source_sums.counts.total(), sink_rows=sink_sums.counts.total())
    result.merchants = len(source_sums.counts.keys() | sink_sums.counts.keys())
    shortlist = source_sums.differing(sink_sums)
    rejected = {(m, key) for type_, m, key in sink.rejected if type_ == table.type}
    for rows, documents in _shortlisted(table, source, sink.read, shortlist, merchant):
        differences, changed = compare(rows, documents, bound, rejected)
        result.differences += differences
        result.changed += changed
    return result


def _shortlisted(
    table: Table, source: ReadSource, sink: ReadSink, shortlist: Collection[str], merchant: str | None
) -> Iterator[tuple[Iterator[SourceRow], Iterator[SinkRow]]]:
    if len(shortlist) <= _MERCHANT_BY_MERCHANT:
        for each in sorted(shortlist):
            yield source(table, each), sink(table, each)
    else:
        yield (
            (row for row in source(table, merchant) if row.merchant in shortlist),
            (row for row in sink(table, merchant) if row.merchant in shortlist),
        )
