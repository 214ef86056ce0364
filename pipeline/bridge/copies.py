"""Records of detached lanes as objects: their form, where they lie, and which of them a lane needs."""

from __future__ import annotations

import gzip
import struct
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple

from pipeline.bridge.topics import Topics
from pipeline.control import copies
from pipeline.control.copies import Copy
from pipeline.control.database import ControlDatabase
from pipeline.control.fences import Hold
from pipeline.errors import TransientError
from pipeline.storage import Bucket

_HEAD = struct.Struct(">qii")  # offset, length of key, length of value; -1: there is none
_GARBAGE_AFTER = timedelta(minutes=15)  # longer than any put that is still on its way


class CopiedRecord(NamedTuple):
    """One record of a topic."""

    offset: int
    key: bytes | None
    value: bytes | None


def encode(records: Iterable[CopiedRecord]) -> bytes:
    """Records as one object."""
    parts: list[bytes] = []
    for offset, key, value in records:
        lengths = (-1 if part is None else len(part) for part in (key, value))
        parts += [_HEAD.pack(offset, *lengths), key or b"", value or b""]
    return gzip.compress(b"".join(parts), compresslevel=1, mtime=0)


def decode(content: bytes) -> list[CopiedRecord]:
    """The records of an object."""
    data, at, records = gzip.decompress(content), 0, []
    while at < len(data):
        offset, *lengths = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        parts: list[bytes | None] = []
        for length in lengths:
            parts.append(None if length < 0 else data[at : at + length])
            at += max(0, length)
        records.append(CopiedRecord(offset, parts[0], parts[1]))
    return records


def covered(found: Iterable[Copy], first: int) -> int:
    """Up to where a lane's records are copied without a gap, beginning at `first`; `found` are its copies by offset."""
    for copy in found:
        if copy.first <= first < copy.end:
            first = copy.end
    return first


def by_lane(found: Iterable[Copy]) -> dict[str, list[Copy]]:
    """The copies of each lane."""
    lanes: dict[str, list[Copy]] = {}
    for copy in found:
        lanes.setdefault(copy.lane, []).append(copy)
    return lanes


class Copies:
    """One consumer's copies, by the numbers of its partitions. The bucket is opened when it is needed."""

    def __init__(
        self,
        database: ControlDatabase,
        open_bucket: Callable[[], Bucket],
        prefix: str,
        consumer: str,
        topics: Topics,
    ) -> None:
        self._database = database
        self._open_bucket = open_bucket
        self._prefix = prefix
        self._consumer = consumer
        self._topics = topics

    @cached_property
    def _bucket(self) -> Bucket:
        return self._open_bucket()

    def standing(self, numbers: Collection[int]) -> dict[int, dict[str, int]]:
        """The detached lanes of each partition that has any, and the first offset of each that is not accepted."""
        places = [self._topics.place(number) for number in numbers]
        found = copies.standing(self._database, self._consumer, places)
        return {self._topics.number(*place): lanes for place, lanes in found.items()}

    def listed(self, number: int, lanes: Collection[str]) -> list[Copy]:
        """What is copied of these lanes, by offset."""
        return copies.listed(self._database, self._consumer, self._topics.place(number), lanes)

    def load(self, key: str) -> list[CopiedRecord]:
        """What an object holds, by offset; TransientError when S3 does not give it."""
        content = self._bucket.get(key)
        try:
            return decode(content)
        except (OSError, EOFError, zlib.error, struct.error) as error:
            raise TransientError(
                f"the copy {key} is damaged", hint="a version of the bucket may have it"
            ) from error

    def put(self, number: int, fence: int, records: Sequence[CopiedRecord]) -> str:
        """Write records as an object, announced before; its key. FencedError when the partition is no longer ours."""
        topic, partition = self._topics.place(number)
        key = f"{self._prefix}/{topic}/{partition}/{records[0].offset}-{uuid.uuid4().hex[:12]}.gz"
        copies.announce(self._database, self._hold(number, fence), key)
        self._bucket.put({key: encode(records)})
        return key

    def write(self, number: int, fence: int, found: Sequence[Copy]) -> None:
        """These are copied."""
        copies.write(self._database, self._hold(number, fence), found)

    def explain(self, number: int, fence: int, reasons: Mapping[str, str]) -> int:
        """Give detached lanes these reasons; how many did not have theirs yet."""
        return copies.explain(self._database, self._hold(number, fence), reasons)

    def collect(self, numbers: Collection[int], age: timedelta = _GARBAGE_AFTER) -> int:
        """Delete objects that no lane has anything in any more, `age` after they were announced; how many."""
        places = [self._topics.place(number) for number in numbers]
        keys = copies.unused(self._database, self._consumer, places, age)
        if keys:
            self._bucket.delete(keys)
            copies.forget(self._database, keys)
        return len(keys)

    def close(self) -> None:
        """Close this thread's connection to the control database."""
        self._database.close()

    def _hold(self, number: int, fence: int) -> Hold:
        return Hold(self._consumer, *self._topics.place(number), fence)
