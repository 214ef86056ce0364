"""One document type against one sink: checksums per merchant first, then the keys of merchants that differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from pipeline.verify.compare import Comparison, SinkRow, SourceRow, Sums, compare, sums

ReadSource = Callable[[str, str | None], Iterator[SourceRow]]
"""(type, merchant or None for all) -> the living rows of the snapshots."""
ReadSink = Callable[[str, str | None], Iterator[SinkRow]]
"""(type, merchant or None for all) -> what the sink holds, tombstones too."""
_MERCHANT_BY_MERCHANT = 50  # a longer shortlist is read in one pass over the whole type


@dataclass(frozen=True, slots=True)
class Sink:
    """One sink to compare with: its consumer's name, how it is read, and (type, merchant, key) of what was set aside."""

    name: str
    read: ReadSink
    rejected: Collection[tuple[str, str, str]]


def compare_type(
    type_: str, source: ReadSource, source_sums: Sums, sink: Sink, merchant: str | None
) -> Comparison:
    """Compare one type, or one merchant of it, under the snapshots with `sink`."""
    sink_sums = sums(sink.read(type_, merchant))
    result = Comparison(rows=source_sums.counts.total(), sink_rows=sink_sums.counts.total())
    result.merchants = len(source_sums.counts.keys() | sink_sums.counts.keys())
    rejected = {(owner, key) for name, owner, key in sink.rejected if name == type_}
    shortlist = source_sums.differing(sink_sums) | {
        owner for owner, _ in rejected if merchant in (None, owner)
    }
    for rows, documents in _shortlisted(type_, source, sink.read, shortlist, merchant):
        differences, changed = compare(rows, documents, rejected)
        result.differences += differences
        result.changed += changed
    return result


def _shortlisted(
    type_: str, source: ReadSource, sink: ReadSink, shortlist: Collection[str], merchant: str | None
) -> Iterator[tuple[Iterator[SourceRow], Iterator[SinkRow]]]:
    if len(shortlist) <= _MERCHANT_BY_MERCHANT:
        for each in sorted(shortlist):
            yield source(type_, each), sink(type_, each)
    else:
        yield (
            (row for row in source(type_, merchant) if row.merchant in shortlist),
            (row for row in sink(type_, merchant) if row.merchant in shortlist),
        )
