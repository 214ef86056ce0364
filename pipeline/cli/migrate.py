"""``pipeline migrate``: the release step."""

from __future__ import annotations

import click

from pipeline import settings as configuration
from pipeline.capture import catalog
from pipeline.capture.session import session
from pipeline.capture.topics import ensure_topic
from pipeline.control.database import ControlDatabase
from pipeline.control.database import migrate as migrate_control
from pipeline.domain.table import Table
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
    _tell(
        "topic", ensure_topic(settings.environment.kafka_bootstrap_servers, settings.configuration.deployment)
    )
    with connect(settings.environment.elasticsearch_url.get_secret_value()) as client:
        _tell("indices", ensure_indices(client, settings, tables))
    _tell("warehouse", ensure_tables(settings, tables))


def configured_tables(settings: Settings) -> list[Table]:
    """Every configured table as its source's catalog has it now."""
    tables: list[Table] = []
    for name, source in settings.configuration.sources.items():
        with session(settings.source_url(name)) as connection:
            tables += catalog.read(connection, name, source)
    return tables


def _tell(what: str, made: list[str]) -> None:
    click.echo(f"{what}: {', '.join(made) if made else 'nothing to do'}")
