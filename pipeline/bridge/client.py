"""The Kafka client, for all who read."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError
from kafka.future import Future

from pipeline.bridge.batches import PartitionRecords
from pipeline.bridge.driver import Driver
from pipeline.control.identities import Identity

_SOON_MS = 20


class Client(KafkaConsumer):  # type: ignore[misc]  # the client has no types
    """Kafka's client, which costs less and of which nothing stays behind when no broker answers.

    Its own keeps a thread and its sockets then. And its poll hands over to that thread three times and waits for each
    answer: ours does so once, and only when no records are there yet. Records are read as in `pipeline.bridge.batches`.

    `threadless`: the loop is driven by whoever calls, and by a thread of ours while nobody does (`pipeline.bridge.driver`). All
    calls must be on one thread.
    """

    def __init__(self, *, threadless: bool = False, **options: Any) -> None:
        self._driver: Driver | None = None
        try:
            super().__init__(**options)
            if threadless:
                self._driver = Driver(self._net)
        except BaseException:
            if hasattr(self, "_client"):
                self._client.close()
            raise
        coordinator, fetcher = self._coordinator, self._fetcher
        self._held_ms = fetcher.config["fetch_max_wait_ms"]
        coordinator.ensure_coordinator_ready = partial(
            _ready, coordinator, coordinator.ensure_coordinator_ready
        )
        fetcher.fetch_records = partial(_fetch_records, fetcher)
        fetcher.PartitionRecords = PartitionRecords

    def close(self, autocommit: bool = True, timeout_ms: float | None = None) -> None:
        """See KafkaConsumer."""
        if self._driver is not None:
            self._driver.close()
        super().close(autocommit=autocommit, timeout_ms=timeout_ms)

    def fetch(self, size: int, *, soon: bool) -> None:
        """The next fetches bring so many bytes of a partition, or one batch if that is larger.

        `soon`: they are not held for long where nothing is, because a partition may flow again before.
        """
        self._fetcher.config["max_partition_fetch_bytes"] = size
        self._fetcher.config["fetch_max_wait_ms"] = min(_SOON_MS, self._held_ms) if soon else self._held_ms

    @property
    def joins(self) -> bool:
        """True while it has to join its group anew."""
        return bool(self._coordinator.need_rejoin())

    def identities(self, topics: Iterable[str]) -> dict[str, Identity]:
        """Who these topics are by the newest metadata that the client has; those that it does not know are left out."""
        cluster = self._cluster
        counts = {topic: cluster.partitions_for_topic(topic) for topic in topics}
        return {
            topic: Identity(cluster.cluster_id, _told(cluster.topic_id(topic)))
            for topic, known in counts.items()
            if known
        }


def _told(id_: UUID | None) -> str | None:
    """Brokers that know of no ids send zero."""
    return str(id_) if id_ is not None and id_.int else None


def _ready(coordinator: Any, find: Any, timeout_ms: float | None = None) -> bool:
    """Only a coordinator that is not known is looked for."""
    try:
        unknown = coordinator.coordinator_unknown()
    except KeyError:  # another thread was just forgetting a failure
        unknown = True
    return not unknown or find(timeout_ms)


def _fetch_records(
    fetcher: Any, max_records: int | None = None, update_offsets: bool = True, timeout_ms: float | None = None
) -> tuple[dict[Any, list[Any]], bool]:
    """See Fetcher.fetch_records.

    The next fetch is sent when somebody asks for records again, not when these are handed out: one that is answered
    meanwhile has little in it, and what comes behind that would wait for the fetch after it.
    """
    _raise_failure(fetcher)
    records, _ = fetcher.fetched_records(max_records, update_offsets=update_offsets)
    if records:
        return records, False
    fetcher._net.run(_answered, fetcher, timeout_ms)
    return fetcher.fetched_records(max_records, update_offsets=update_offsets)[0], False


def _raise_failure(fetcher: Any) -> None:
    """What could not be read behind records that were handed out.

    The client forgets it when its partition is paused by now, and then looks for its next record for ever.
    """
    failed, subscriptions = fetcher._next_in_line_exception_metadata, fetcher._subscriptions
    if failed is None or not subscriptions.is_assigned(failed.partition):
        return
    position = subscriptions.position(failed.partition)
    if position is not None and position.offset == failed.fetched_offset:
        raise failed.exception


async def _answered(fetcher: Any, timeout_ms: float | None) -> None:
    """Fetch and wait until something has come or the time is over; for a moment where there is nothing to wait for.

    The client would sleep that moment outside its loop, in which heartbeats and connections would make a step each time.
    """
    await fetcher._send_fetches_async()
    if fetcher._completed_fetches:
        return  # it came after the caller looked, and has no future any more
    waited_on = [*fetcher._fetch_futures]
    if fetcher._reset_task is not None and not fetcher._reset_task.is_done:
        waited_on.append(fetcher._reset_task)
    if not waited_on:
        moment = fetcher.config["retry_backoff_ms"]
        await fetcher._net.sleep((moment if timeout_ms is None else min(timeout_ms, moment)) / 1000)
        return
    answer = Future()

    def arrived(_: Any) -> None:
        if not answer.is_done:
            answer.success(None)

    for one in waited_on:
        one.add_both(arrived)
    with suppress(KafkaTimeoutError):
        await fetcher._manager.wait_for(answer, timeout_ms)
