"""The Celery app: ``celery -A tasks.app worker -Q search``. The one place that reads the settings when imported.

Every consumer in ``pipeline.toml`` is a task and a queue of its own name; the queue's merchants are lanes.
So are those of the queue ``tasks``, for ordinary Celery tasks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery, signals
from kombu import Exchange, Queue

from pipeline import garbage, settings
from pipeline.control import rejected
from pipeline.control.database import ControlDatabase
from pipeline.lanes import request, transport
from pipeline.lanes.claim import TurnLimits
from pipeline.lanes.handlers import handler_of
from pipeline.lanes.held import HeldTurns, Renewal
from pipeline.lanes.held_tasks import TASKS, HeldTasks
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.lanes.task_request import LaneQueues, LaneTask
from pipeline.lanes.turn import Backoff, Consumption
from pipeline.settings import Settings
from pipeline.sweeping import sweepers
from pipeline.telemetry import Heartbeat, Metrics, configure_logging

_jitter = random.random  # seeds itself anew in the children of a pool


def build(configured: Settings) -> tuple[Celery, dict[str, HeldTurns]]:
    """The app of a deployment, and the turns that its workers in this process will hold."""
    url = configured.environment.redis_url.get_secret_value()
    celery = Celery("pipeline", broker=url, set_as_current=True, task_cls=LaneTask)
    celery.amqp.queues_cls = LaneQueues
    celery.conf.update(_conf(configured))
    database = ControlDatabase(configured.environment.control_database_url.get_secret_value())
    client = connect(url)
    held: dict[str, HeldTurns] = {}
    for name, consumer in configured.configuration.consumers.items():
        store = RedisLaneStore(client, namespace_of(configured.deployment, name), TurnLimits.of(consumer))
        held[name] = HeldTurns(store, _jitter)
        request.register(celery, _consumption(configured, database, name))
    of_tasks = TurnLimits.of_tasks(configured.configuration.tasks)
    held[TASKS] = HeldTasks(
        RedisLaneStore(client, namespace_of(configured.deployment, TASKS), of_tasks), _jitter
    )
    transport.install(held)
    return celery, held


def _consumption(configured: Settings, database: ControlDatabase, name: str) -> Consumption:
    consumer, topic = configured.consumer(name), configured.topics_of(name)[0]
    topics = topic.topic, configured.snapshots.topic
    return Consumption(
        consumer=name,
        handler=handler_of(consumer.handler, f"consumers.{name}.handler"),
        set_aside=lambda rejections: rejected.store(database, name, topics, rejections),
        backoff=Backoff(_jitter),
        partitions=topic.partitions,
        single=consumer.group == 1,
    )


def _conf(configured: Settings) -> Mapping[str, Any]:
    hints = _hints(configured)
    names = [*configured.configuration.consumers, TASKS, *hints]
    return {
        "task_queues": [Queue(name, Exchange(name), name) for name in names],
        "task_default_queue": "unrouted",
        "task_ignore_result": True,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "pipeline.lanes.worker:Worker",
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "broker_transport_options": {
            "global_keyprefix": f"{configured.deployment}:",
            "priority_steps": [0],
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
        "enable_utc": True,
        "timezone": "UTC",
        "include": [*(f"tasks.{name}" for name in hints), *configured.configuration.tasks.include],
        "task_routes": {name: {"queue": name} for name in hints},
        # Whoever takes a hint does what is due. One that nobody took in time is not worth keeping.
        "beat_schedule": {
            name: {"task": name, "schedule": 2.0, "options": {"expires": 10}} for name in hints
        },
    }


def _hints(configured: Settings) -> list[str]:
    """Tasks that beat hints at, each on a plain queue of its name."""
    wanted = {"loads": configured.configuration.loads, "sweeps": bool(sweepers(configured))}
    return [name for name, hinted in wanted.items() if hinted]


class CeleryProcess:
    """What a Celery process does beside its work: it beats, and a worker renews the leases of its turns."""

    def __init__(self, configured: Settings, held: Mapping[str, HeldTurns]) -> None:
        self._configured = configured
        self._held = held
        self._renewal: Renewal | None = None
        self._heartbeat: Heartbeat | None = None

    def ready(self, queues: list[str]) -> None:
        """The worker consumes these queues now."""
        garbage.settle()
        mine = [turns for name, turns in self._held.items() if name in queues]
        self._renewal = Renewal(mine).start()
        self._beat(f"worker:{','.join(sorted(queues))}", lambda: metrics(mine))

    def schedules(self) -> None:
        """This process is beat; it has no last word, so its heartbeat ends with it."""
        self._beat("beat", dict)

    def stopped(self) -> None:
        """The worker has ended its last turn."""
        for turns in self._held.values():
            turns.end()
        if self._renewal is not None and self._heartbeat is not None:
            self._renewal.stop()
            self._heartbeat.stop()

    def _beat(self, name: str, figures: Callable[[], Metrics]) -> None:
        client = connect(self._configured.environment.redis_url.get_secret_value())
        self._heartbeat = Heartbeat(client, self._configured.deployment, name, figures).start()


def metrics(held: list[HeldTurns]) -> Metrics:
    """What this worker has done since it started, over its consumers."""
    tallies = [turns.tally for turns in held]
    return {
        "turns": sum(tally.turns for tally in tallies),
        "events": sum(tally.events for tally in tallies),
        "rejected": sum(tally.rejected for tally in tallies),
        "failures": sum(tally.failures for tally in tallies),
        "refused": sum(tally.refused for tally in tallies),
        "turn_ms": sum(tally.milliseconds for tally in tallies),
    }


_settings = settings.load()
app, _held_turns = build(_settings)
_process = CeleryProcess(_settings, _held_turns)


def _set_up_logging(**_: Any) -> None:
    configure_logging("celery")


def _ready(**_: Any) -> None:
    _process.ready(list(app.amqp.queues.consume_from))


def _child_ready(**_: Any) -> None:
    garbage.settle()


def _schedules(**_: Any) -> None:
    _process.schedules()


def _stopped(**_: Any) -> None:
    _process.stopped()


signals.setup_logging.connect(_set_up_logging, weak=False)
signals.worker_ready.connect(_ready, weak=False)
signals.worker_process_init.connect(_child_ready, weak=False)
signals.beat_init.connect(_schedules, weak=False)
signals.worker_shutdown.connect(_stopped, weak=False)
