"""The process behind ``pipeline capture run``: logs, signals, heartbeat, and the relay in the middle."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import structlog

from pipeline import settings as configuration
from pipeline.capture.backlog import Backlog
from pipeline.capture.process import Capture, open_producer
from pipeline.capture.publisher import Producer, PublishError
from pipeline.capture.watch import Metrics
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.lanes.store import connect as connect_redis
from pipeline.settings import Settings
from pipeline.telemetry import Heartbeat, configure_logging, heartbeats


def relay(source: str, producer: Callable[[], Producer] | None = None) -> None:
    """Relay until told to stop; a `producer` takes the place of the configured Kafka client, in benches."""
    settings = configuration.load()
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    require_migrated(database)
    configure_logging(f"capture-{source}")
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    metrics = Metrics()
    client = connect_redis(settings.environment.redis_url.get_secret_value())
    heartbeat = Heartbeat(client, settings.deployment, f"capture-{source}", lambda: _figures(metrics)).start()
    bound = settings.source(source).snapshot_backlog
    backlog = Backlog(lambda: heartbeats(client, settings.deployment), lambda: metrics.snapshot_rows, bound)
    try:
        _process(settings, database, source, producer, metrics, backlog, stop).run()
    except PublishError as error:
        structlog.get_logger().error("ends, to replay its batch", reason=str(error))
        sys.stderr.flush()
        os._exit(1)  # a producer that failed may never let itself be closed
    finally:
        backlog.close()
        heartbeat.stop()


def _process(
    settings: Settings,
    database: ControlDatabase,
    source: str,
    producer: Callable[[], Producer] | None,
    metrics: Metrics,
    backlog: Backlog,
    stop: threading.Event,
) -> Capture:
    deployment, environment = settings.configuration.deployment, settings.environment
    bootstrap, security = environment.kafka_bootstrap_servers, environment.kafka_security
    return Capture(
        name=source,
        url=settings.source_url(source),
        source=settings.source(source),
        deployment=deployment,
        bootstrap_servers=bootstrap,
        security=security,
        open_producer=producer or partial(open_producer, source, deployment, bootstrap, security),
        database=database,
        metrics=metrics,
        backlog=backlog,
        stop=stop,
    )


def _figures(metrics: Metrics) -> dict[str, float | int | str]:
    figures = asdict(metrics)
    ticked_at = figures.pop("last_tick_at")
    return figures | {"last_tick_age_seconds": round(time.time() - ticked_at, 3) if ticked_at else -1}
