"""The only home of the Kafka client in the bridge: a member of a consumer's group, and a view on the group's offsets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from pipeline.bridge.client_settings import MEMBERSHIP, READING
from pipeline.bridge.stalls import STALLED_AFTER, StallWatch
from pipeline.errors import FencedError, PermanentError, PositionLostError, TransientError
from pipeline.ports import Polled, Record

_ANSWER_MS = 3000
_GLANCES, _GLANCE_MS = 5, 200

_FENCED = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.FencedInstanceIdError,
)
_LOST = (
    kafka_errors.NoOffsetForPartitionError,
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.LogTruncationError,
)
_PERMANENT = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.CorruptRecordError,
    kafka_errors.UnsupportedVersionError,
)
_log = structlog.get_logger()


@contextmanager
def _translated() -> Iterator[None]:
    """Kafka's errors as ours."""
    try:
        yield
    except _FENCED as error:
        raise FencedError(f"kafka: {type(error).__name__}: another member may own the partition") from error
    except _LOST as error:
        raise PositionLostError(f"kafka: {type(error).__name__}: {error}") from error
    except _PERMANENT as error:
        raise PermanentError(f"kafka: {type(error).__name__}: {error}") from error
    except kafka_errors.KafkaError as error:
        reason = f"kafka: {type(error).__name__}: {error}"
        raise TransientError(reason, hint="see KAFKA_BOOTSTRAP_SERVERS") from error


class GroupView:
    """Reads a topic's bounds and a group's offsets without being a member; offsets can be set while it has none."""

    def __init__(self, bootstrap: str, topic: str, group: str | None = None) -> None:
        self._topic = topic
        with _translated():
            self._consumer = KafkaConsumer(
                bootstrap_servers=bootstrap, group_id=group, bootstrap_timeout_ms=_ANSWER_MS, **READING
            )

    def partitions(self) -> frozenset[int]:
        """The topic's partitions; empty when there is no such topic."""
        with _translated():
            self._consumer.topics()
            return frozenset(self._consumer.partitions_for_topic(self._topic) or ())

    def beginnings(self) -> dict[int, int]:
        """The first offset of each partition that still exists."""
        return self._by_partition(self._consumer.beginning_offsets)

    def ends(self) -> dict[int, int]:
        """The offset after the last record of each partition."""
        return self._by_partition(self._consumer.end_offsets)

    def committed(self) -> dict[int, int]:
        """The group's committed offset of each partition that has one."""
        return _committed(self._consumer, [TopicPartition(self._topic, p) for p in self.partitions()])

    def commit(self, positions: Mapping[int, int]) -> None:
        """Set offsets; FencedError while the group has members."""
        with _translated():
            self._consumer.assign([TopicPartition(self._topic, p) for p in positions])
            self._consumer.commit(_for_kafka(self._topic, positions), timeout_ms=_ANSWER_MS)

    def published_at(self, positions: Mapping[int, int]) -> dict[int, float]:
        """When the record at each of these offsets was published, in seconds since 1970; only of those it can read."""
        places = {TopicPartition(self._topic, partition): offset for partition, offset in positions.items()}
        found: dict[int, float] = {}
        with _translated():
            self._consumer.assign(list(places))
            for place, offset in places.items():
                self._consumer.seek(place, offset)
            for _ in range(_GLANCES):
                for place, records in self._consumer.poll(timeout_ms=_GLANCE_MS).items():
                    found.setdefault(place.partition, records[0].timestamp / 1000)
                if len(found) == len(places):
                    break
        return found

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close(autocommit=False, timeout_ms=_ANSWER_MS)

    def _by_partition(self, ask: Callable[..., Mapping[Any, int]]) -> dict[int, int]:
        places = [TopicPartition(self._topic, p) for p in self.partitions()]
        with _translated():
            return {place.partition: offset for place, offset in ask(places, timeout_ms=_ANSWER_MS).items()}


def _committed(consumer: Any, places: Sequence[Any]) -> dict[int, int]:
    with _translated():
        found = {place.partition: consumer.committed(place, timeout_ms=_ANSWER_MS) for place in places}
    return {partition: offset for partition, offset in found.items() if offset is not None}


def _for_kafka(topic: str, positions: Mapping[int, int]) -> dict[Any, Any]:
    return {TopicPartition(topic, p): OffsetAndMetadata(offset) for p, offset in positions.items()}


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    """Notes what was assigned and revoked. It runs on the client's own thread, where calls to the client fail."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._assigned: set[int] = set()
        self._revoked: set[int] = set()

    def on_partitions_assigned(self, assigned: Sequence[Any]) -> None:
        with self._lock:
            self._assigned |= {place.partition for place in assigned}

    def on_partitions_revoked(self, revoked: Sequence[Any]) -> None:
        with self._lock:
            gone = {place.partition for place in revoked}
            self._revoked |= gone
            self._assigned -= gone

    def on_partitions_lost(self, lost: Sequence[Any]) -> None:
        self.on_partitions_revoked(lost)

    def take(self) -> tuple[frozenset[int], frozenset[int]]:
        """What was assigned and what was revoked since the last call."""
        with self._lock:
            assigned, revoked = frozenset(self._assigned), frozenset(self._revoked)
            self._assigned, self._revoked = set(), set()
        return assigned, revoked


class GroupMember:
    """One member of a consumer's group: a RecordSource and its Offsets.

    A partition that should move and does not for 30 s is taken for a stall of the client: the client is replaced.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        group: str,
        *,
        options: Mapping[str, Any] = READING,
        stalled_after: float = STALLED_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._options = {
            "bootstrap_servers": bootstrap,
            "group_id": group,
            "client_id": group,
            "partition_assignment_strategy": [CooperativeStickyAssignor],
            **MEMBERSHIP,
            **options,
        }
        self._stalls = StallWatch(stalled_after, clock)
        self._pausing: frozenset[int] = frozenset()
        self._open()

    def _open(self) -> None:
        self._changes = _Changes()
        with _translated():
            self._consumer = KafkaConsumer(**self._options)
            self._consumer.subscribe([self._topic], listener=self._changes)

    def poll(self, timeout: float) -> Polled:
        """See RecordSource."""
        if self._stalled():
            return Polled(records={}, revoked=self._replace())
        self._apply_pauses()
        try:
            with _translated():
                found = self._consumer.poll(timeout_ms=int(timeout * 1000))
        except PositionLostError as error:
            raise self._explained(error) from error
        assigned, revoked = self._changes.take()
        records: dict[int, Sequence[Record]] = {place.partition: batch for place, batch in found.items()}
        return Polled(records, assigned, revoked)

    def position(self, partition: int) -> int:
        """See RecordSource; TransientError when the partition has just been taken away."""
        with _translated():
            position = self._consumer.position(TopicPartition(self._topic, partition), timeout_ms=0)
        if position is None:
            raise TransientError(f"partition {partition} has no position yet")
        return int(position)

    def seek(self, partition: int, offset: int) -> None:
        """See RecordSource; TransientError when the partition has just been taken away."""
        place = TopicPartition(self._topic, partition)
        if place not in self._consumer.assignment():
            raise TransientError(f"partition {partition} has just been taken away")
        with _translated():
            self._consumer.seek(place, offset)

    def pause(self, partitions: frozenset[int]) -> None:
        """See RecordSource."""
        self._pausing = partitions
        self._apply_pauses()

    def ends(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """See RecordSource."""
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        with _translated():
            found = self._consumer.end_offsets(places, timeout_ms=_ANSWER_MS) if places else {}
        return {place.partition: offset for place, offset in found.items()}

    def committed(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """See Offsets."""
        return _committed(self._consumer, [TopicPartition(self._topic, p) for p in partitions])

    def commit(self, positions: Mapping[int, int]) -> None:
        """See Offsets. Kafka accepts commits of partitions that belong to others, so ownership is checked here."""
        foreign = positions.keys() - {place.partition for place in self._consumer.assignment()}
        if foreign:
            raise FencedError(f"partitions {sorted(foreign)} are no longer ours")
        with _translated():
            self._consumer.commit(_for_kafka(self._topic, positions), timeout_ms=_ANSWER_MS)

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=3000)
        except kafka_errors.KafkaError as error:
            _log.warning("left the group without a word", error=type(error).__name__)

    def _apply_pauses(self) -> None:
        wanted = {place for place in self._consumer.assignment() if place.partition in self._pausing}
        paused = self._consumer.paused()
        self._consumer.pause(*(wanted - paused))
        self._consumer.resume(*(paused - wanted))

    def _stalled(self) -> bool:
        if not self._stalls.due():
            return False
        flowing = {place.partition for place in self._consumer.assignment()} - self._pausing
        try:
            ends = self.ends(frozenset(flowing))
            behind = {p: at for p in flowing if (at := self.position(p)) < ends[p]}
        except TransientError:
            behind = {}  # a broker that does not answer explains a stall
        return self._stalls.stalled(behind)

    def _replace(self) -> frozenset[int]:
        _log.error("the kafka client stalls and is replaced")
        gone = frozenset(place.partition for place in self._consumer.assignment())
        self.close()
        try:
            self._open()
        except TransientError as error:  # the process that starts next has a client of its own
            raise PermanentError("the stalled kafka client could not be replaced") from error
        self._stalls.stalled({})
        return gone

    def _explained(self, error: PositionLostError) -> PositionLostError:
        """The same, with what was lost and what to do about it."""
        places = [TopicPartition(self._topic, place.partition) for place in self._consumer.assignment()]
        with _translated():
            beginnings = self._consumer.beginning_offsets(places, timeout_ms=_ANSWER_MS)
        committed = self.committed(frozenset(place.partition for place in places))
        lost = [
            f"partition {place.partition}: offsets {committed[place.partition]} to {first - 1} passed retention"
            for place, first in beginnings.items()
            if committed.get(place.partition, first) < first
        ]
        return PositionLostError(
            f"{self._topic}: {'; '.join(lost) or error.what}",
            hint=f"set the offsets of group {self._options['group_id']} to where to go on from (kafka-consumer-groups"
            " --reset-offsets --to-earliest), start the bridge again, then snapshot every source",
        )
