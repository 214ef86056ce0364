"""A relay driven by hand: its publisher and its loop, without the process around them."""

from collections.abc import Iterator
from contextlib import contextmanager

from kafka.admin import KafkaAdminClient

from pipeline.capture.envelope import Envelopes
from pipeline.capture.kafka_python import KafkaPythonProducer
from pipeline.capture.publisher import Publisher
from pipeline.capture.queue import Queue
from pipeline.capture.relay import Clock, Outlet, Relay
from pipeline.capture.reread import Rereader
from pipeline.capture.snapshot import Snapshots
from pipeline.capture.watch import Bounds, Metrics, Watch
from tests.integration.captured import NAME


@contextmanager
def publishing(bootstrap: str, topic: str, partitions: int = 1) -> Iterator[Publisher]:
    """A publisher to `topic`, with a topic of progress beside it."""
    progress = f"{topic}.progress"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics({progress: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    publisher = Publisher(
        KafkaPythonProducer(bootstrap, client_id="test"), {topic: partitions, f"{topic}.events": partitions}
    )
    try:
        yield publisher
    finally:
        publisher.close()
        admin.delete_topics([progress])
        admin.close()


def relay_of(
    queue: Queue, publisher: Publisher, envelopes: Envelopes, snapshots: Snapshots, topic: str, clock: Clock
) -> Relay:
    """The relay of source NAME, once it has the lock."""
    assert queue.acquire()
    outlet, metrics = Outlet(NAME, topic, f"{topic}.events", f"{topic}.progress", 1), Metrics()
    watch = Watch(NAME, Bounds(300.0, 1 << 30), metrics)
    return Relay(
        queue,
        publisher,
        envelopes,
        snapshots,
        Rereader(lambda: queue.connection, []),
        outlet,
        watch,
        metrics,
        lambda: None,
        lambda: False,
        clock,
    )
