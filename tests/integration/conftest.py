"""Fixtures that several integration tests share."""

from collections.abc import Iterator, Mapping

import psycopg
import pytest

from devstack.postgres import create_database, drop_database
from pipeline.control.database import ControlDatabase, migrate
from tests.conftest import SourceDatabase, at, unique
from tests.integration.captured import Captured


@pytest.fixture(scope="module")
def capture_databases(
    postgres_url: str, variables: Mapping[str, str]
) -> Iterator[tuple[SourceDatabase, str]]:
    """A source database and the URL of a migrated control database, for all tests of a module."""
    source, control = unique("source"), unique("control")
    pipeline, app = variables["CONTROL_DATABASE_URL"], variables["EXAMPLE_WRITER_URL"]
    create_database(postgres_url, source)
    with psycopg.connect(postgres_url, autocommit=True) as session:
        session.execute(f'create database "{control}" owner pipeline'.encode())
    database = ControlDatabase(at(pipeline, control))
    migrate(database)
    database.close()
    yield (
        SourceDatabase(source, at(pipeline, source), at(app, source), at(postgres_url, source)),
        at(pipeline, control),
    )
    for name in (source, control):
        drop_database(postgres_url, name)


@pytest.fixture
def captured(capture_databases: tuple[SourceDatabase, str]) -> Iterator[Captured]:
    """An empty source and an empty control database; capture is not installed yet."""
    source, control_url = capture_databases
    with psycopg.connect(source.admin_url, autocommit=True) as session:
        session.execute("drop schema if exists cdc cascade; drop schema public cascade")
        session.execute("select pgq.drop_queue(queue_name, true) from pgq.queue")
        session.execute("create schema public authorization app")
    database = ControlDatabase(control_url)
    with database.transaction() as connection:
        connection.execute("truncate sources, tables, snapshots, actions, sweeps, placements cascade")
    yield Captured(source, database)
    database.close()
