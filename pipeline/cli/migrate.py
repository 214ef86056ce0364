"""``pipeline migrate``: the release step."""

from __future__ import annotations

import click

from pipeline import settings as configuration
from pipeline.capture import catalog
from pipeline.capture.session import session
from pipeline.capture.topics import ensure_topics
from pipeline.control.database import ControlDatabase
from pipeline.control.database import migrate as migrate_control
from pipeline.domain.table import Table
from pipeline.errors import TransientError
from pipeline.search.client import connect
from pipeline.search.mapping import ensure_indices
from pipeline.settings import Settings
from pipeline.warehouse.tables import ensure_tables


@click.command()
def migrate() -> None:
    """Make what the processes need: control database, topic, indices, tables. Run it once before each release.

    Everything is only ever added; what exists and differs is reported and left alone.
    """
    settings = configuration.load()
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    _tell("control database", migrate_control(database))
    tables = configured_tables(settings)
    kafka, security = settings.environment.kafka_bootstrap_servers, settings.environment.kafka_security
    _tell("topics", ensure_topics(kafka, settings.configuration.deployment, security))
    with connect(settings.environment.elasticsearch_url.get_secret_value()) as client:
        _tell("indices", ensure_indices(client, settings, tables))
    _tell("warehouse", ensure_tables(settings, tables))


def configured_tables(settings: Settings) -> list[Table]:
    """Every configured table as its source's catalog has it now."""
    return [table for name in settings.configuration.sources for table in tables_of(settings, name)]


def tables_of(settings: Settings, source: str) -> list[Table]:
    """The configured tables of one source; TransientError names the source that does not answer."""
    try:
        with session(settings.source_url(source)) as connection:
            return catalog.read(connection, source, settings.source(source))
    except TransientError as error:
        raise TransientError(
            f"source {source}: {error.what}", hint=f"see {source.upper()}_DATABASE_URL"
        ) from error


def _tell(what: str, made: list[str]) -> None:
    click.echo(f"{what}: {', '.join(made) if made else 'nothing to do'}")
