"""A member of a consumer's group: reads the partitions it is given, and commits for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from threading import Lock
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from pipeline.bridge.client import Client
from pipeline.bridge.client_errors import translated
from pipeline.bridge.client_settings import READING, SMALL_PIECE, membership
from pipeline.bridge.group_view import ANSWER_MS, committed_of, for_kafka
from pipeline.bridge.identity import KnownTopics
from pipeline.bridge.pace import GLANCE
from pipeline.bridge.slices import Slices
from pipeline.bridge.stalls import STALLED_AFTER, StallWatch
from pipeline.bridge.topics import Topics
from pipeline.errors import FencedError, PermanentError, PositionLostError, TransientError
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity
from pipeline.ports import Committed, Polled, Record

# Seconds that a poll waits at least while the client has no partition, and while it joins anew.
_JOINING, _JOINING_AGAIN = 1.0, 0.1
UNASSIGNED_AFTER, _RAREST_JOIN = 15.0, 300.0

_log = structlog.get_logger()


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    """Notes what was assigned and revoked. It runs inside the client's loop, from where calls to the client fail."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._lock = Lock()
        self._assigned: set[int] = set()
        self._revoked: set[int] = set()

    def on_partitions_assigned(self, assigned: Sequence[Any]) -> None:
        with self._lock:
            self._assigned |= self._numbers(assigned)

    def on_partitions_revoked(self, revoked: Sequence[Any]) -> None:
        with self._lock:
            gone = self._numbers(revoked)
            self._revoked |= gone
            self._assigned -= gone

    def on_partitions_lost(self, lost: Sequence[Any]) -> None:
        self.on_partitions_revoked(lost)

    def _numbers(self, places: Sequence[Any]) -> set[int]:
        return {self._topics.number(place.topic, place.partition) for place in places}

    def take(self) -> tuple[frozenset[int], frozenset[int]]:
        """What was assigned and what was revoked since the last call."""
        with self._lock:
            assigned, revoked = frozenset(self._assigned), frozenset(self._revoked)
            self._assigned, self._revoked = set(), set()
        return assigned, revoked


class GroupMember:
    """One member of a consumer's group: a RecordSource and its Offsets, partitions numbered through `topics`.

    A partition that should move and does not for 30 s is taken for a stall of the client: the client is replaced.
    `known`: the topics that its offsets belong to; PositionLostError from a poll when others have their names by now.
    `instance`: a name under which a member that comes back within 30 s has the partitions that it had; PermanentError
    from a commit when another process has joined under it.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Topics,
        group: str,
        *,
        known: KnownTopics | None = None,
        instance: str | None = None,
        security: KafkaSecurity = PLAINTEXT,
        options: Mapping[str, Any] = READING,
        stalled_after: float = STALLED_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = topics
        self._known = known
        self._options = {
            "bootstrap_servers": bootstrap,
            "group_id": group,
            "client_id": group,
            "partition_assignment_strategy": [CooperativeStickyAssignor],
            **membership(instance),
            **security.kafka_python(),
            **options,
        }
        self._clock = clock
        self._stalls = StallWatch(stalled_after, clock)
        self._assigned_at, self._joining = clock(), UNASSIGNED_AFTER
        self._pausing: frozenset[int] = frozenset()
        self._slices = Slices()
        self._behind: frozenset[int] = frozenset()
        self._piece = self._options["max_partition_fetch_bytes"]
        self._open()

    def _open(self) -> None:
        self._changes = _Changes(self._topics)
        with translated():
            self._consumer = Client(threadless=True, **self._options)
            try:
                self._consumer.subscribe(list(self._topics.names), listener=self._changes)
            except BaseException:
                self.close()
                raise

    def poll(self, timeout: float, most: int | None = None, resting: Set[int] = frozenset()) -> Polled:
        """See RecordSource."""
        if self._stalled() or self._forgotten():
            return Polled(records={}, revoked=self._replace())
        self._apply_pauses()
        stopped = self._pausing | resting
        self._consumer.fetch(
            self._piece if most is None else min(self._piece, SMALL_PIECE), soon=bool(self._behind)
        )
        # A poll that ends while the client joins its group can leave it without partitions for good.
        if not self._consumer.assignment():
            timeout = max(timeout, _JOINING)
        elif self._consumer.joins:
            timeout = max(timeout, _JOINING_AGAIN)
        elif self._slices.partitions - stopped:
            others = self._assigned() - stopped - self._slices.partitions
            timeout = min(timeout, GLANCE) if others else 0.0
        try:
            with translated():
                found = self._consumer.poll(timeout_ms=int(timeout * 1000))
        except PositionLostError as error:
            self._require_same()
            raise self._explained(error) from error
        self._require_same()
        assigned, revoked = self._changes.take()
        self._forget(assigned | revoked)
        brought: dict[int, Sequence[Record]] = {self._number(place): batch for place, batch in found.items()}
        records = self._slices.cut(brought, most, stopped)
        left = {number: self._left(number, batch[-1].offset) for number, batch in records.items()}
        self._behind = (self._behind - left.keys()) | {number for number, count in left.items() if count}
        return Polled(records, assigned, revoked, left)

    def _forget(self, numbers: frozenset[int]) -> None:
        self._slices.forget(numbers)
        self._behind -= numbers

    def _left(self, number: int, offset: int) -> int:
        end = None
        with suppress(kafka_errors.IllegalStateError, KeyError):  # it has just been taken away
            end = self._consumer.highwater(self._place(number))
        return 0 if end is None else max(0, int(end) - offset - 1)

    def _require_same(self) -> None:
        if self._known is not None:
            self._known.require(self._consumer.identities(self._topics.names))

    def position(self, partition: int) -> int:
        """See RecordSource; TransientError when the partition has just been taken away."""
        kept = self._slices.first(partition)
        if kept is not None and self._place(partition) in self._consumer.assignment():
            return kept
        with translated():
            position = self._consumer.position(self._place(partition), timeout_ms=0)
        if position is None:
            raise TransientError(f"partition {partition} has no position yet")
        return int(position)

    def seek(self, partition: int, offset: int) -> None:
        """See RecordSource; TransientError when the partition has just been taken away."""
        place = self._place(partition)
        if place not in self._consumer.assignment():
            raise TransientError(f"partition {partition} has just been taken away")
        self._forget(frozenset({partition}))
        with translated():
            self._consumer.seek(place, offset)

    def pause(self, partitions: frozenset[int]) -> None:
        """See RecordSource."""
        self._pausing = partitions
        self._apply_pauses()

    def ends(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """See RecordSource."""
        places = [self._place(partition) for partition in partitions]
        with translated():
            found = self._consumer.end_offsets(places, timeout_ms=ANSWER_MS) if places else {}
        return {self._number(place): offset for place, offset in found.items()}

    def committed(self, partitions: frozenset[int]) -> Mapping[int, Committed]:
        """See Offsets."""
        return committed_of(self._consumer, self._topics, partitions)

    def commit(self, positions: Mapping[int, Committed]) -> None:
        """See Offsets. Kafka accepts commits of partitions that belong to others, so ownership is checked here."""
        foreign = positions.keys() - self._assigned()
        if foreign:
            raise FencedError(f"partitions {sorted(foreign)} are no longer ours")
        with translated():
            self._consumer.commit(for_kafka(self._topics, positions), timeout_ms=ANSWER_MS)

    def close(self) -> None:
        """Leave the group, so that others take over at once; a member with an instance name stays in it."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=3000)
        except kafka_errors.KafkaError as error:
            _log.warning("left the group without a word", error=type(error).__name__)

    def _place(self, number: int) -> Any:
        return TopicPartition(*self._topics.place(number))

    def _number(self, place: Any) -> int:
        return self._topics.number(place.topic, place.partition)

    def _assigned(self) -> frozenset[int]:
        return frozenset(map(self._number, self._consumer.assignment()))

    def _apply_pauses(self) -> None:
        stopped = self._pausing | self._slices.partitions
        wanted = {place for place in self._consumer.assignment() if self._number(place) in stopped}
        paused = self._consumer.paused()
        self._consumer.pause(*(wanted - paused))
        self._consumer.resume(*(paused - wanted))

    def _stalled(self) -> bool:
        if not self._stalls.due():
            return False
        flowing = self._assigned() - self._pausing
        try:
            ends = self.ends(frozenset(flowing))
            behind = {p: at for p in flowing if (at := self.position(p)) < ends[p]}
        except TransientError:
            behind = {}  # a broker that does not answer explains a stall
        return self._stalls.stalled(behind)

    def _forgotten(self) -> bool:
        """True when the client has had no partition for too long; each time it is given twice as long as before.

        A member more than there are partitions is replaced too, ever more rarely, and does no harm by it.
        """
        now = self._clock()
        if self._consumer.assignment():
            self._assigned_at, self._joining = now, UNASSIGNED_AFTER
        elif now - self._assigned_at >= self._joining:
            self._assigned_at, self._joining = now, min(2 * self._joining, _RAREST_JOIN)
            return True
        return False

    def _replace(self) -> frozenset[int]:
        _log.error("the kafka client stalls and is replaced")
        gone = self._assigned()
        self._forget(self._slices.partitions | self._behind)
        self.close()
        try:
            self._open()
        except TransientError as error:  # the process that starts next has a client of its own
            raise PermanentError("the stalled kafka client could not be replaced") from error
        self._stalls.stalled({})
        return gone

    def _explained(self, error: PositionLostError) -> PositionLostError:
        """The same, with what was lost and what to do about it."""
        numbers = self._assigned()
        with translated():
            found = self._consumer.beginning_offsets(
                [self._place(number) for number in numbers], timeout_ms=ANSWER_MS
            )
        committed = self.committed(numbers)
        lost = [
            f"{place.topic} partition {place.partition}: offsets {at.offset} to {first - 1} passed retention"
            for place, first in sorted(found.items())
            if (at := committed.get(self._number(place), Committed(first))).offset < first
        ]
        return PositionLostError(
            "; ".join(lost) or error.what,
            hint=f"set the offsets of group {self._options['group_id']} to where to go on from (kafka-consumer-groups"
            " --reset-offsets --to-earliest), start the bridge again, then snapshot every source",
        )
