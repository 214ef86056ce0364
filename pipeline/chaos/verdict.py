"""What a chaos run found: what was lost or out of order, what came twice, how often each fault struck."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from pipeline.chaos.sink import Delivered, Gap

_EXAMPLES = 10


class Struck(NamedTuple):
    """A fault that struck: when, in seconds since the beginning, and whom. ``recovered``: seconds until all of before was in."""

    at: float
    fault: str
    whom: str
    recovered: float | None


class Sample(NamedTuple):
    """How far Kafka and the sink were at a moment, in records."""

    at: float
    published: int
    delivered: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """``lost``: in Kafka, and said to be accepted or never coming, but not in the sink. Times are in seconds."""

    seed: int
    seconds: float
    merchants: int
    published: int
    delivered: int
    lost: int
    out_of_order: int
    duplicates: int
    token_regressions: int
    skipped: int
    at_rest: bool
    rest_after: float
    faults: Mapping[str, int]
    requests: Mapping[str, int]
    refused: Mapping[str, int]
    recovery: Mapping[str, Sequence[float]]
    findings: Sequence[str]
    struck: Sequence[Struck] = field(default=(), repr=False)
    samples: Sequence[Sample] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """True when nothing was lost and nothing out of order, and everything came to rest."""
        return not self.findings

    def figures(self) -> dict[str, Any]:
        """For programs."""
        return {"ok": self.ok, **asdict(self)}


class Count(NamedTuple):
    """What was published and what of it the sink has."""

    published: int
    delivered: int
    missing: Mapping[str, tuple[int, int]]
    """Of merchants that lack something: the last number in the sink and in Kafka."""

    @property
    def lacking(self) -> int:
        """Records that are not in the sink."""
        return sum(last - have for have, last in self.missing.values())


def counted(
    published: Mapping[str, int], delivered: Mapping[str, Delivered], allowed: Mapping[str, Collection[int]]
) -> Count:
    """Compare Kafka's last number of each merchant with the sink's; those that may be missing at the end are not counted."""
    missing = {}
    for merchant, number in published.items():
        last = number
        while last in allowed.get(merchant, ()):
            last -= 1
        if delivered[merchant].last < last:
            missing[merchant] = (delivered[merchant].last, last)
    total = sum(published.values())
    return Count(total, total - sum(last - have for have, last in missing.values()), missing)


def findings(count: Count, gaps: Sequence[Gap], *, at_rest: bool, failure: str) -> list[str]:
    """Everything that is wrong, in words; empty when nothing is."""
    found = [failure] if failure else []
    found += [
        f"merchant {gap.merchant}: {gap.got} came where {gap.expected} was next (token {gap.token}, process {gap.taker})"
        for gap in gaps[:_EXAMPLES]
    ]
    if not at_rest:
        found.append("it did not come to rest")
    what = "lost" if at_rest else "missing"
    found += [
        f"merchant {merchant}: {have + 1} to {last} {what}"
        for merchant, (have, last) in list(count.missing.items())[:_EXAMPLES]
    ]
    return found
