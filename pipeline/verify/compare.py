"""The comparison, pure: rows of a snapshot against the documents of one sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

Finding = Literal["lost", "phantom", "different", "rejected"]
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One living row of the snapshot. ``without`` gives its digest as if it did not have those columns."""

    merchant: str
    key: str
    digest: int
    without: Callable[[frozenset[str]], int]


@dataclass(frozen=True, slots=True)
class SinkRow:
    """One row or tombstone of a sink; ``digest`` is computed from the columns the sink stores.

    ``changed``: its version is above every version that its source's snapshot can hold. ``flags``: columns that do not
    hold the source's value because the sink cannot, and says so; they are not in the digest.
    """

    merchant: str
    key: str
    changed: bool
    deleted: bool
    digest: int
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that is not as it must be."""

    finding: Finding
    merchant: str
    key: str


@dataclass(slots=True)
class Sums:
    """Counts and order-free checksums per merchant."""

    counts: Counter[str] = field(default_factory=Counter)
    checksums: dict[str, int] = field(default_factory=dict)

    def add(self, merchant: str, digest: int) -> None:
        """Take one living row in."""
        self.counts[merchant] += 1
        self.checksums[merchant] = self.checksums.get(merchant, 0) + digest & _MASK

    def differing(self, other: Sums) -> set[str]:
        """Merchants whose count or checksum differs: the shortlist."""
        merchants = self.counts.keys() | other.counts.keys()
        return {
            merchant
            for merchant in merchants
            if self.counts[merchant] != other.counts[merchant]
            or self.checksums.get(merchant) != other.checksums.get(merchant)
        }


@dataclass(slots=True)
class Comparison:
    """What came out for one table and one sink. ``changed``: keys skipped because they changed after the mark."""

    rows: int = 0
    sink_rows: int = 0
    changed: int = 0
    merchants: int = 0
    differences: list[Difference] = field(default_factory=list)

    def count(self, finding: Finding) -> int:
        """How many keys have this finding."""
        return sum(difference.finding == finding for difference in self.differences)


def compare(
    rows: Iterable[SourceRow], sink: Iterable[SinkRow], rejected: Collection[tuple[str, str]]
) -> tuple[list[Difference], int]:
    """Compare key by key; returns the differences and how many keys changed after the mark.

    `rejected` holds (merchant, key) of events that were set aside: such a key is named as rejected instead of lost,
    different or phantom.
    """
    living = {(row.merchant, row.key): row for row in rows}
    changed = 0
    differences = []
    for row in sink:
        expected = living.pop((row.merchant, row.key), None)
        if row.changed:
            changed += 1
            continue
        finding = _finding(expected, row)
        if finding is not None:
            differences.append(_named(finding, row.merchant, row.key, rejected))
    differences += [_named("lost", merchant, key, rejected) for merchant, key in living]
    return sorted(differences, key=lambda d: (d.finding, d.merchant, d.key)), changed


def _finding(expected: SourceRow | None, row: SinkRow) -> Finding | None:
    if expected is None:
        return None if row.deleted else "phantom"
    if row.deleted:
        return "lost"
    digest = expected.without(row.flags) if row.flags else expected.digest
    return None if row.digest == digest else "different"


def _named(finding: Finding, merchant: str, key: str, rejected: Collection[tuple[str, str]]) -> Difference:
    return Difference("rejected" if (merchant, key) in rejected else finding, merchant, key)


def sums(rows: Iterable[SourceRow | SinkRow]) -> Sums:
    """Sum up the living rows."""
    result = Sums()
    for row in rows:
        if not (isinstance(row, SinkRow) and row.deleted):
            result.add(row.merchant, row.digest)
    return result
