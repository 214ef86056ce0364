"""``pipeline check``: is everything as it must be, before anything is started."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

import click
from rich.console import Console

from pipeline import settings as configuration
from pipeline.bridge.fitness import short_retention, store_problems
from pipeline.bridge.identity import KnownTopics
from pipeline.bridge.progress import view_of
from pipeline.capture import disabling
from pipeline.capture.session import session
from pipeline.capture.topics import check_topics
from pipeline.cli.importing import working_directory
from pipeline.cli.migrate import tables_of
from pipeline.control import identities
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.domain.table import Table
from pipeline.errors import ConfigurationError, PipelineError, PositionLostError
from pipeline.lanes.handlers import handler_of
from pipeline.lanes.store import connect as connect_redis
from pipeline.search.client import connect as connect_search
from pipeline.search.client import translated
from pipeline.search.mapping import check_indices
from pipeline.settings import Deployment, Settings, seconds
from pipeline.storage import Bucket
from pipeline.warehouse.tables import check_tables

Probe = tuple[str, Callable[[], Sequence[str]]]
"""What is checked, and a call that returns what is wrong with it, one sentence each, or raises a PipelineError."""


@click.command()
def check() -> None:
    """Check pipeline.toml and the environment, then every connection and what the services hold.

    Reports everything at once; exits with 1 when anything is wrong. Secrets are never shown.
    """
    settings = configuration.load()
    console = Console(highlight=False)
    console.print(f"[green]✓[/] {settings.path.name} and environment")
    wrong = 0
    for name, ask in _probes(settings):
        problems = _problems(ask)
        wrong += len(problems)
        console.print(f"[{'red' if problems else 'green'}]{'✗' if problems else '✓'}[/] {name}")
        for problem in problems:
            console.print(f"    {problem}", markup=False, soft_wrap=True)
    for warning in _warnings(settings.configuration.deployment):
        console.print(f"[yellow]![/] {warning}", soft_wrap=True)
    sys.exit(1 if wrong else 0)


def _warnings(deployment: Deployment) -> list[str]:
    topics = (deployment.datastream, deployment.snapshots, deployment.eventstream)
    return [said for one in topics if (said := short_retention(one.topic, seconds(one.retention)))]


def _problems(ask: Callable[[], Sequence[str]]) -> Sequence[str]:
    try:
        return ask()
    except ConfigurationError as error:
        return error.problems
    except PipelineError as error:
        return [str(error)]


def _probes(settings: Settings) -> Iterator[Probe]:
    environment = settings.environment
    tables: list[Table] = []
    yield "control database", lambda: _control(settings)
    for name in settings.configuration.sources:
        yield f"source {name}", partial(_source, settings, name, tables)
    kafka, deployment = environment.kafka_bootstrap_servers, settings.configuration.deployment
    yield (
        f"Kafka, topic {settings.datastream.topic}",
        lambda: check_topics(kafka, deployment, environment.kafka_security),
    )
    yield "Redis", lambda: _redis(environment.redis_url.get_secret_value())
    yield "Elasticsearch", lambda: _search(settings, tables)
    yield f"S3, bucket {environment.s3_bucket}", lambda: _bucket(environment.s3_bucket)
    yield "Redshift", lambda: check_tables(settings, tables)
    for name in settings.configuration.consumers:
        yield f"consumer {name}", partial(_consumer, settings, name)


def _control(settings: Settings) -> list[str]:
    require_migrated(ControlDatabase(settings.environment.control_database_url.get_secret_value()))
    return []


def _source(settings: Settings, name: str, tables: list[Table]) -> list[str]:
    """Adds the source's tables to `tables`: what the sinks must hold is asked of the sources that answer, once."""
    tables += tables_of(settings, name)
    with session(settings.source_url(name)) as connection:
        since = disabling.read(connection)
    return [] if since is None else [f"{since}; to end this, run: pipeline capture enable {name}"]


def _redis(url: str) -> list[str]:
    with connect_redis(url) as client:
        losing, amiss = store_problems(client)
    return losing + amiss


def _search(settings: Settings, tables: Sequence[Table]) -> list[str]:
    with connect_search(settings.environment.elasticsearch_url.get_secret_value()) as client:
        with translated("asking for its version"):
            client.info()
        return check_indices(client, settings, tables)


def _bucket(name: str) -> list[str]:
    Bucket(name).check()
    return []


def _consumer(settings: Settings, name: str) -> list[str]:
    return [*_problems(lambda: _handler(settings, name)), *_problems(lambda: _its_topics(settings, name))]


def _handler(settings: Settings, name: str) -> list[str]:
    with working_directory():
        handler_of(settings.consumer(name).handler, f"consumers.{name}.handler")
    return []


def _its_topics(settings: Settings, name: str) -> list[str]:
    """Whether its offsets belong to these; a service that does not answer is told where it is checked itself."""
    url = settings.environment.control_database_url.get_secret_value()
    try:
        with closing(ControlDatabase(url)) as database:
            known = identities.known(database, name)
        if known:
            with closing(view_of(settings, name)) as view:
                KnownTopics(name, known).require(view.identities())
    except PositionLostError as error:
        return [str(error)]
    except PipelineError:
        return []
    return []
