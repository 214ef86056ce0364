"""``pipeline bridge CONSUMER``."""

from __future__ import annotations

import signal
import threading

import click
import structlog
from redis import Redis

from pipeline import settings as configuration
from pipeline.bridge.backpressure import Flow, store_pressure
from pipeline.bridge.bookkeeping import Bookkeeping
from pipeline.bridge.consumer import GroupMember
from pipeline.bridge.dispatcher import Dispatcher
from pipeline.bridge.start import ensure_started, group_of
from pipeline.bridge.topics import Topics
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.lanes.claim import TurnLimits
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.settings import Settings
from pipeline.telemetry import Heartbeat, configure_logging

# In the lanes of this process's partitions; what it keeps itself is offsets.
PENDING_BYTES, SNAPSHOT_BYTES = 512 * 1024 * 1024, 64 * 1024 * 1024


@click.command()
@click.argument("consumer")
def bridge(consumer: str) -> None:
    """Append each merchant's records to its lane of CONSUMER; commit what its sink has accepted.

    Any number of these may run for one consumer: they share the partitions.
    """
    settings = configuration.load()
    settings.consumer(consumer)
    configure_logging(f"bridge-{consumer}")
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    run(settings, consumer, stop)


def run(settings: Settings, consumer: str, stop: threading.Event) -> None:
    """Run one bridge until `stop` is set."""
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    require_migrated(database)
    ensure_started(database, settings, consumer)
    client = connect(settings.environment.redis_url.get_secret_value())
    member = GroupMember(
        settings.environment.kafka_bootstrap_servers,
        Topics.of(settings, consumer),
        group_of(settings, consumer),
        security=settings.environment.kafka_security,
    )
    dispatcher = _dispatcher(settings, consumer, database, client, member)
    heartbeat = Heartbeat(client, settings.deployment, f"bridge-{consumer}", dispatcher.metrics).start()
    structlog.get_logger().info("bridge runs", consumer=consumer, group=group_of(settings, consumer))
    try:
        dispatcher.run(stop)
    finally:
        member.close()
        heartbeat.stop()
        client.close()
        database.close()


def _dispatcher(
    settings: Settings, consumer: str, database: ControlDatabase, client: Redis, member: GroupMember
) -> Dispatcher:
    topics, limits = Topics.of(settings, consumer), settings.consumer(consumer)
    books = Bookkeeping(database, consumer, topics)
    return Dispatcher(
        member,
        member,
        RedisLaneStore(client, namespace_of(settings.deployment, consumer), TurnLimits.of(limits)),
        partitions=topics.partitions,
        draw_fences=books.draw_fences,
        set_aside=books.set_aside,
        pass_sweeps=books.pass_sweeps,
        flow=Flow(
            lane_bytes=limits.lane_bytes,
            pending_bytes=PENDING_BYTES,
            snapshot_bytes=SNAPSHOT_BYTES,
            pressure=store_pressure(client),
        ),
    )
