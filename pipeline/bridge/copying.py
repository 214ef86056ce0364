"""What detached lanes wait for is copied before it passes retention: in a thread of its own, by who holds the partition.

A record is copied when half of its retention is over, together with those that follow up to a quarter, so that a lane that
waits for long is copied in a few large pieces. What passed retention uncopied is said of the lane and never skipped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog

from pipeline.bridge.belonging import key_of
from pipeline.bridge.copied import Reader
from pipeline.bridge.copies import CopiedRecord, Copies, by_lane, covered
from pipeline.bridge.detached import passed_retention
from pipeline.control.copies import Copy
from pipeline.errors import FencedError, PipelineError, TransientError
from pipeline.ports import Record
from pipeline.telemetry import Metrics

EVERY, _FIRST_AFTER = 60.0, 10.0
_CHUNK_BYTES = 4 * 1024 * 1024
_POLL, _SILENCE = 0.5, 120
_SAY_AGAIN = 3600.0

_log = structlog.get_logger()

Fences = Callable[[], Mapping[int, int]]
"""The partitions that the bridge holds now, each with its fence."""


class Times(Protocol):
    """What of partitions is left, and when it was published."""

    def beginnings(self) -> Mapping[int, int]:
        """The first offset of each partition that still exists."""

    def at(self, moments: Mapping[int, float]) -> Mapping[int, int]:
        """The first record published at or after that moment."""

    def published_at(self, positions: Mapping[int, int]) -> Mapping[int, float]:
        """When the record at each of these offsets was published."""


class StoppedError(PipelineError):
    """The bridge stops, or the partition is no longer ours."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Of one partition: its first offset, the end of what has used half and a quarter of its retention, its lanes."""

    number: int
    fence: int
    begin: int
    half: int
    quarter: int
    lanes: Mapping[str, int]


@dataclass(slots=True)
class _Counts:
    age: float = 0.0
    old: int = 0
    lost: int = 0


class Copier:
    """One bridge's. `retention`: of each partition, in seconds, None for ever; asked at each pass, as `times` is."""

    def __init__(
        self,
        copies: Copies,
        reader: Reader,
        *,
        times: Callable[[], AbstractContextManager[Times]],
        retention: Callable[[], Mapping[int, float | None]],
        fences: Fences,
        chunk_bytes: int = _CHUNK_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._copies = copies
        self._reader = reader
        self._times = times
        self._retention = retention
        self._fences = fences
        self._chunk_bytes = chunk_bytes
        self._now = now
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="copies", daemon=True)
        self._counts = _Counts()
        self._copied_bytes = 0
        self._failing = False
        self._said_at = float("-inf")

    def start(self) -> Copier:
        """Begin to look, once a minute."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End; what is being copied is copied again by whoever is next."""
        self._stop.set()
        self._thread.join(timeout=5)
        self._reader.close()

    def metrics(self) -> Metrics:
        """What the heartbeat shows beside the dispatcher's."""
        return {
            "detached_age_s": round(self._counts.age, 1),
            "aging_lanes": self._counts.old,
            "lost_lanes": self._counts.lost,
            "copied_bytes": self._copied_bytes,
            "copying_fails": int(self._failing or not self._thread.is_alive()),
        }

    def _run(self) -> None:
        wait = _FIRST_AFTER
        while not self._stop.wait(wait):
            wait = EVERY
            try:
                self.run_once()
            except (StoppedError, FencedError):
                continue
            except PipelineError as error:
                self._failing = True
                _log.warning("detached lanes are not copied", error=str(error))
            else:
                self._failing = False
        self._copies.close()

    def run_once(self) -> None:
        """Look at every partition that is held; copy what is due."""
        fences = dict(self._fences())
        lanes = self._copies.standing(fences.keys()) if fences else {}
        if lanes:
            with self._times() as times:
                looks = self._look(times, fences, lanes)
                self._count(times, looks)
            for look in looks:
                self._copy_lanes(look)
        else:
            self._counts = _Counts()
        self._copies.collect(fences.keys())

    def _look(
        self, times: Times, fences: Mapping[int, int], lanes: Mapping[int, Mapping[str, int]]
    ) -> list[_Look]:
        kept = {
            number: seconds
            for number, seconds in self._retention().items()
            if number in lanes and seconds is not None
        }
        now, begins = self._now(), times.beginnings()
        half = times.at({number: now - seconds / 2 for number, seconds in kept.items()})
        quarter = times.at({number: now - seconds / 4 for number, seconds in kept.items()})
        return [
            _Look(number, fences[number], begins[number], half[number], quarter[number], lanes[number])
            for number in sorted(kept)
        ]

    def _count(self, times: Times, looks: Sequence[_Look]) -> None:
        """How old what waits is, and the alarm that comes long before it is gone."""
        heads = {look.number: max(look.begin, min(look.lanes.values())) for look in looks}
        heads = {look.number: heads[look.number] for look in looks if heads[look.number] < look.quarter}
        published = times.published_at(heads) if heads else {}
        age = max((self._now() - moment for moment in published.values()), default=0.0)
        old = [lane for look in looks for lane, first in look.lanes.items() if first < look.quarter]
        lost = [lane for look in looks for lane in self._lost(look)]
        self._counts = _Counts(age, len(old), len(lost))
        if not old:
            self._said_at = float("-inf")
        elif self._now() >= self._said_at + _SAY_AGAIN:
            self._said_at = self._now()
            _log.error(
                "detached lanes wait for more than a quarter of the retention",
                lanes=len(old), some=sorted(old)[:5], oldest_hours=round(age / 3600, 1),
            )  # fmt: skip

    def _lost(self, look: _Look) -> dict[str, str]:
        """Lanes that need what is neither in Kafka nor copied, and why they can go no further; it is written to their rows."""
        behind = {lane: first for lane, first in look.lanes.items() if first < look.begin}
        if not behind:
            return {}
        found = by_lane(self._copies.listed(look.number, behind.keys()))
        reasons = {
            lane: passed_retention(first, look.begin)
            for lane, first in behind.items()
            if covered(found.get(lane, ()), first) < look.begin
        }
        if reasons and self._copies.explain(look.number, look.fence, reasons):
            _log.error(
                "records of detached lanes passed retention", partition=look.number, lanes=sorted(reasons)[:5]
            )
        return reasons

    def _copy_lanes(self, look: _Look) -> None:
        due = {lane: first for lane, first in look.lanes.items() if first < look.half}
        if not due:
            return
        found = by_lane(self._copies.listed(look.number, due.keys()))
        ends = {lane: max(covered(found.get(lane, ()), first), look.begin) for lane, first in due.items()}
        starts = {lane: end for lane, end in ends.items() if end < look.half}
        if not starts:
            return
        try:
            self._copy(look, starts)
        finally:
            self._reader.drop(look.number)
        _log.info("detached lanes copied", partition=look.number, lanes=len(starts), until=look.quarter)

    def _copy(self, look: _Look, ends: dict[str, int]) -> None:
        """Copy what these lanes have from `ends` on, in chunks; each is written down as soon as it is there."""
        lanes = {key_of(lane): lane for lane in ends}
        position = min(ends.values())
        self._reader.seek(look.number, position)
        chunk: list[CopiedRecord] = []
        size, silent = 0, 0
        while position < look.quarter:
            if self._stop.is_set() or self._fences().get(look.number) != look.fence:
                raise StoppedError("the partition is left as it is")
            began = time.monotonic()
            records = self._reader.poll(_POLL).get(look.number, ())
            position = min(self._reader.position(look.number), look.quarter)
            silent = 0 if records else silent + 1
            if silent > _SILENCE:
                raise TransientError("kafka gives no records", hint="see KAFKA_BOOTSTRAP_SERVERS")
            chunk += self._wanted(records, lanes, ends, look.quarter)
            size = sum(len(record.value or b"") for record in chunk)
            if size >= self._chunk_bytes:
                self._flush(look, chunk, lanes, ends, position)
                chunk = []
            self._stop.wait(time.monotonic() - began)  # half of the time is the bridge's
        self._flush(look, chunk, lanes, ends, position)
        rest = [Copy(lane, end, position, None) for lane, end in ends.items() if end < position]
        self._copies.write(look.number, look.fence, rest)

    @staticmethod
    def _wanted(
        records: Sequence[Record], lanes: Mapping[bytes, str], ends: Mapping[str, int], until: int
    ) -> list[CopiedRecord]:
        return [
            CopiedRecord(record.offset, record.key, record.value)
            for record in records
            if record.key is not None
            and (lane := lanes.get(record.key)) is not None
            and ends[lane] <= record.offset < until
        ]

    def _flush(
        self,
        look: _Look,
        chunk: Sequence[CopiedRecord],
        lanes: Mapping[bytes, str],
        ends: dict[str, int],
        until: int,
    ) -> None:
        if not chunk:
            return
        key = self._copies.put(look.number, look.fence, chunk)
        here = {lanes[record.key] for record in chunk if record.key is not None}
        self._copies.write(
            look.number, look.fence, [Copy(lane, ends[lane], until, key) for lane in sorted(here)]
        )
        ends.update(dict.fromkeys(here, until))
        self._copied_bytes += sum(len(record.value or b"") for record in chunk)
