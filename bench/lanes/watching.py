"""How long events took from Kafka to their task, by an outside clock: what was sent, beside what a worker noted.

Nothing in an envelope is used. The clock starts before a record is handed to the Kafka client, so that its way into the
topic counts too, and stops when the task comes to the record's lane; both processes read the machine's monotonic clock.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.lanes.consumers import RECEIPT
from bench.lanes.traffic import SENT

Place = tuple[int, int]
"""Partition and offset."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One event: when it was sent, in seconds since its phase began, and the milliseconds until its task."""

    at: float
    ms: float


def quantile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent are not above; nan without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


def p99(samples: Iterable[Sample]) -> float:
    """The 99th percentile of their milliseconds."""
    return quantile([sample.ms for sample in samples], 99)


def per_second(samples: Iterable[Sample], percent: float) -> list[tuple[float, float]]:
    """The quantile of each second in which events were sent."""
    seconds: dict[int, list[float]] = {}
    for sample in samples:
        seconds.setdefault(int(sample.at), []).append(sample.ms)
    return [(second + 0.5, quantile(values, percent)) for second, values in sorted(seconds.items())]


def read(file: Path, line: struct.Struct) -> Iterator[tuple[Place, float]]:
    """The lines of a log; a line that is not whole yet is left out."""
    data = file.read_bytes() if file.exists() else b""
    for partition, offset, at in line.iter_unpack(data[: len(data) // line.size * line.size]):
        yield (partition, offset), at


def sent(file: Path) -> dict[Place, float]:
    """When each event was sent."""
    return dict(read(file, SENT))


def received(file: Path) -> dict[Place, float]:
    """When a task first came to each event."""
    found: dict[Place, float] = {}
    for place, at in read(file, RECEIPT):
        found.setdefault(place, at)
    return found


def samples(sent: dict[Place, float], received: dict[Place, float], began: float) -> list[Sample]:
    """Every event that was sent, in order. RuntimeError when one never came to a task."""
    missing = sent.keys() - received.keys()
    if missing:
        raise RuntimeError(f"{len(missing)} of {len(sent)} events never came to a task")
    found = [Sample(at - began, (received[place] - at) * 1000) for place, at in sent.items()]
    return sorted(found, key=lambda sample: sample.at)


def spread(values: Sequence[float]) -> float:
    """How far values lie apart, as a fraction of their median: 0.2 is 20 %; 0 for one value."""
    return (max(values) - min(values)) / median(values)


def change(values: Sequence[float], beside: Sequence[float]) -> float:
    """How much higher the median of `values` is than that of `beside`, as a fraction."""
    return median(values) / median(beside) - 1
