"""``pipeline status``: one screen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from typing import TypeVar

import click
from rich.console import Console

from pipeline import settings as configuration
from pipeline.bridge import progress
from pipeline.capture import queue
from pipeline.capture.session import session
from pipeline.cli.importing import working_directory
from pipeline.cli.status_screen import screen
from pipeline.cli.status_state import ConsumerState, SourceState, State
from pipeline.control import lane_views, parts, placements, rejected, requests, snapshots, sweeps
from pipeline.control.database import ControlDatabase
from pipeline.errors import PipelineError
from pipeline.lanes.claim import Overview
from pipeline.lanes.held_tasks import TASKS
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from pipeline.settings import Configuration, Settings
from pipeline.sweeping import Sweeper, sweepers
from pipeline.telemetry import ProcessState, heartbeats

T = TypeVar("T")
_PARKED_SHOWN = 20


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Capture lag, consumer lag, lanes and who holds them, freshness of index and warehouse, moves, processes that beat.

    Exits with 1 when something needs a person: a service that does not answer, a process that does not beat, a
    failing or parked lane, a sink that does not accept, a failed load, a snapshot needed.
    """
    state = _read(configuration.load())
    if as_json:
        click.echo(json.dumps(asdict(state), default=str))
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        for part in screen(state):
            console.print(part)
    sys.exit(0 if state.healthy else 1)


def _read(settings: Settings) -> State:
    problems: list[str] = []

    def asked(what: str, ask: Callable[[], list[T]]) -> list[T]:
        try:
            return ask()
        except PipelineError as error:
            problems.append(f"{what}: {error}")
            return []

    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    sources: list[SourceState] = []
    consumers: list[ConsumerState] = []
    for name in settings.configuration.sources:
        sources += asked(f"source {name}", partial(_sources_of, settings, database, name))
    for name in settings.configuration.consumers:
        consumers += asked(f"consumer {name}", partial(_consumers_of, settings, database, name))
    loads = asked("loads", partial(parts.load_states, database))
    with working_directory():
        sweeping = sweepers(settings)
    waiting = [one for each in sweeping for one in asked("sweeps", partial(_sweeps_of, database, each))]
    tasks = asked("tasks", partial(_tasks, settings))
    moves = asked("moves", partial(placements.under_way, database))
    unasked = len(problems)
    processes = asked("processes", partial(_processes, settings))
    asking = len(problems) == unasked
    missing = missing_processes(settings.configuration, processes, sweeping=bool(sweeping)) if asking else []
    return State(sources, consumers, loads, waiting, processes, missing, problems, tasks, moves)


def missing_processes(
    configured: Configuration, processes: Iterable[ProcessState], *, sweeping: bool
) -> list[str]:
    """What pipeline.toml asks for and does not beat.

    A relay per source, a bridge and a worker per consumer, beat, and with `sweeping` a worker for sweeps.
    """
    beating = {process.process for process in processes}
    queues = {queue for name in beating if name.startswith("worker:") for queue in name[7:].split(",")}
    wanted = [f"capture-{source}" for source in configured.sources]
    wanted += [f"bridge-{consumer}" for consumer in configured.consumers]
    missing = [name for name in [*wanted, "beat"] if name not in beating]
    worked = [*configured.consumers, *(["sweeps"] if sweeping else [])]
    return missing + [f"worker:{queue}" for queue in worked if queue not in queues]


def _sources_of(settings: Settings, database: ControlDatabase, name: str) -> list[SourceState]:
    with session(settings.source_url(name)) as connection:
        waiting = snapshots.open_requests(database, name)
        shown = waiting[0] if waiting else snapshots.newest(database, name)
        return [SourceState(name, queue.lag(connection), queue.notices(connection), shown, len(waiting))]


def _consumers_of(settings: Settings, database: ControlDatabase, name: str) -> list[ConsumerState]:
    partitions = settings.topics_of(name)[0].partitions
    behind = {n: end - (committed or 0) for n, (committed, end) in progress.lag(settings, name).items()}
    lag = sum(records for number, records in behind.items() if number < partitions)
    rows = sum(behind.values()) - lag
    with connect(settings.environment.redis_url.get_secret_value()) as client:
        lanes = RedisLaneStore(client, namespace_of(settings.deployment, name)).overview()
    failing = tuple(
        replace(lane, partition=lane.partition % partitions) if lane.partition >= 0 else lane
        for lane in lanes.failing
    )
    lanes = replace(lanes, failing=failing)
    aside = rejected.counts(database).get(name, 0)
    counts = lane_views.counts(database).get(name, lane_views.Counts())
    waits = lag or rows or counts.detached
    oldest = progress.oldest_seconds(settings, name, time.time()) if waits else 0.0
    parked = (
        lane_views.detached(database, name, states=["parked"], limit=_PARKED_SHOWN) if counts.parked else []
    )
    held = requests.paused(database, name)
    return [ConsumerState(name, lag, rows, oldest, lanes, aside, counts, tuple(parked), held)]


def _tasks(settings: Settings) -> list[Overview]:
    """The lanes of Celery tasks; nothing where none were ever sent and no worker is told of them."""
    with connect(settings.environment.redis_url.get_secret_value()) as client:
        lanes = RedisLaneStore(client, namespace_of(settings.deployment, TASKS)).overview()
    some = settings.configuration.tasks.include or lanes.ready or lanes.claimed or lanes.failing_count
    return [lanes] if some else []


def _sweeps_of(database: ControlDatabase, sweeper: Sweeper) -> list[sweeps.Waiting]:
    return sweeps.waiting(database, sweeper.consumer, sweeper.topics)


def _processes(settings: Settings) -> list[ProcessState]:
    with connect(settings.environment.redis_url.get_secret_value()) as client:
        return heartbeats(client, settings.deployment)
