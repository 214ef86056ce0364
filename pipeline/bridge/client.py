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

from pipeline.control.identities import Identity


class Client(KafkaConsumer):  # type: ignore[misc]  # the client has no types
    """Kafka's client, which costs less and of which nothing stays behind when no broker answers.

    Its own keeps a thread and its sockets then. And its poll hands over to that thread three times and waits for each
    answer: ours does so once, and only when no records are there yet.
    """

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except BaseException:
            if hasattr(self, "_client"):
                self._client.close()
            raise
        coordinator, fetcher = self._coordinator, self._fetcher
        coordinator.ensure_coordinator_ready = partial(
            _ready, coordinator, coordinator.ensure_coordinator_ready
        )
        fetcher.fetch_records = partial(_fetch_records, fetcher)

    def fetch_at_most(self, size: int) -> None:
        """The next fetches bring so many bytes of a partition, or one batch if that is larger."""
        self._fetcher.config["max_partition_fetch_bytes"] = size

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
    return not coordinator.coordinator_unknown() or find(timeout_ms)


def _fetch_records(
    fetcher: Any, max_records: int | None = None, update_offsets: bool = True, timeout_ms: float | None = None
) -> tuple[dict[Any, list[Any]], bool]:
    """See Fetcher.fetch_records."""
    records, partly = fetcher.fetched_records(max_records, update_offsets=update_offsets)
    if records:
        if not partly:
            fetcher._manager.call_soon(fetcher._send_fetches_async)
        return records, False
    if not fetcher._net.run(_answered, fetcher, timeout_ms):
        return {}, True
    return fetcher.fetched_records(max_records, update_offsets=update_offsets)[0], False


async def _answered(fetcher: Any, timeout_ms: float | None) -> bool:
    """Fetch and wait until something has come or the time is over; False when there is nothing to wait for."""
    await fetcher._send_fetches_async()
    if fetcher._completed_fetches:
        return True  # it came after the caller looked, and has no future any more
    waited_on = [*fetcher._fetch_futures]
    if fetcher._reset_task is not None and not fetcher._reset_task.is_done:
        waited_on.append(fetcher._reset_task)
    if not waited_on:
        return False
    answer = Future()

    def arrived(_: Any) -> None:
        if not answer.is_done:
            answer.success(None)

    for one in waited_on:
        one.add_both(arrived)
    with suppress(KafkaTimeoutError):
        await fetcher._manager.wait_for(answer, timeout_ms)
    return True
