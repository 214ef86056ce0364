"""``pipeline bridge CONSUMER``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextlib import closing

import click
import structlog
from redis import Redis

from pipeline import garbage
from pipeline import settings as configuration
from pipeline.bridge.backpressure import Flow, store_pressure
from pipeline.bridge.bookkeeping import Bookkeeping
from pipeline.bridge.consumer import GroupMember
from pipeline.bridge.copied import CopiedRereader
from pipeline.bridge.copies import Copies
from pipeline.bridge.copying import Copier
from pipeline.bridge.dispatcher import Dispatcher
from pipeline.bridge.fitness import require_fit, retention_of
from pipeline.bridge.instance import INSTANCE, only_one
from pipeline.bridge.progress import view_of
from pipeline.bridge.reread import TopicRereader
from pipeline.bridge.start import ensure_started, group_of
from pipeline.bridge.topics import Topics
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.lanes.claim import TurnLimits
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.ports import Rereader
from pipeline.settings import Settings
from pipeline.storage import Bucket
from pipeline.telemetry import Heartbeat, configure_logging

# In the lanes of this process's partitions; what it keeps itself is offsets.
PENDING_BYTES, SNAPSHOT_BYTES = 512 * 1024 * 1024, 64 * 1024 * 1024
CURSORS = 2  # per partition; each has a client of its own


def _instance(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not INSTANCE.fullmatch(value):
        raise click.BadParameter("must have only letters, digits, '.', '_' and '-' (≤ 200)")
    return value


@click.command()
@click.argument("consumer")
@click.option("--instance", callback=_instance, help="A name of this process's own, the same at each start.")
def bridge(consumer: str, instance: str | None) -> None:
    """Append each merchant's records to its lane of CONSUMER; commit what its sink has accepted.

    Any number of these may run for one consumer: they share the partitions. One with an --instance keeps its
    partitions when it is back within 30 s; when it stays away, they wait so long for another.
    """
    settings = configuration.load()
    settings.consumer(consumer)
    configure_logging(f"bridge-{consumer}")
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    url, group = settings.environment.control_database_url.get_secret_value(), group_of(settings, consumer)
    with only_one(url, group, instance, stop):
        run(settings, consumer, stop, instance)


def run(settings: Settings, consumer: str, stop: threading.Event, instance: str | None = None) -> None:
    """Run one bridge until `stop` is set."""
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    require_migrated(database)
    client = connect(settings.environment.redis_url.get_secret_value())
    known = ensure_started(database, settings, consumer)
    require_fit(
        settings.environment.kafka_bootstrap_servers,
        Topics.of(settings, consumer).names,
        settings.environment.kafka_security,
        client,
    )
    member = GroupMember(
        settings.environment.kafka_bootstrap_servers,
        Topics.of(settings, consumer),
        group_of(settings, consumer),
        known=known,
        instance=instance,
        security=settings.environment.kafka_security,
    )
    copies = _copies(settings, database, consumer)
    readers = [CopiedRereader(_rereader(settings, consumer), copies) for _ in range(CURSORS)]
    dispatcher = _dispatcher(settings, consumer, database, client, member, readers)
    copier = _copier(settings, consumer, copies, dispatcher).start()
    heartbeat = Heartbeat(
        client,
        settings.deployment,
        f"bridge-{consumer}",
        lambda: {**dispatcher.metrics(), **copier.metrics()},
    ).start()
    structlog.get_logger().info(
        "bridge runs", consumer=consumer, group=group_of(settings, consumer), instance=instance
    )
    garbage.settle()
    try:
        dispatcher.run(stop)
    finally:
        member.close()
        copier.stop()
        for reader in readers:
            reader.close()
        heartbeat.stop()
        client.close()
        database.close()


def _rereader(settings: Settings, consumer: str) -> TopicRereader:
    environment = settings.environment
    return TopicRereader(
        environment.kafka_bootstrap_servers,
        Topics.of(settings, consumer),
        security=environment.kafka_security,
    )


def _copies(settings: Settings, database: ControlDatabase, consumer: str) -> Copies:
    prefix = f"copies/{settings.deployment}/{consumer}"
    bucket = settings.environment.s3_bucket
    return Copies(database, lambda: Bucket(bucket), prefix, consumer, Topics.of(settings, consumer))


def _copier(settings: Settings, consumer: str, copies: Copies, dispatcher: Dispatcher) -> Copier:
    return Copier(
        copies,
        _rereader(settings, consumer),
        times=lambda: closing(view_of(settings, consumer)),
        retention=lambda: retention_of(settings, consumer),
        fences=dispatcher.fences,
    )


def _dispatcher(
    settings: Settings,
    consumer: str,
    database: ControlDatabase,
    client: Redis,
    member: GroupMember,
    readers: Sequence[Rereader],
) -> Dispatcher:
    topics, limits = Topics.of(settings, consumer), settings.consumer(consumer)
    return Dispatcher(
        member,
        member,
        RedisLaneStore(client, namespace_of(settings.deployment, consumer), TurnLimits.of(limits)),
        Bookkeeping(database, consumer, topics),
        readers,
        partitions=topics.partitions,
        flow=Flow(
            lane_bytes=limits.lane_bytes,
            pending_bytes=PENDING_BYTES,
            snapshot_bytes=SNAPSHOT_BYTES,
            pressure=store_pressure(client),
        ),
    )
