"""Makes the company's databases, empty."""

from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from devstack.postgres import create_database

from .tables import GATEWAYS, SOURCES

_FILES = Path(__file__).parent / "schema"


def urls(writer_url: str, prefix: str = "") -> dict[str, str]:
    """Each source's connection string: the server and user of `writer_url`, the database `<prefix><source>`."""
    return {source: make_conninfo(writer_url, dbname=prefix + source) for source in SOURCES}


def create(admin_url: str, writer_url: str, prefix: str = "") -> Mapping[str, str]:
    """Drops the four databases, whoever is connected, and makes them anew, empty, owned by the writer.

    `admin_url` is a superuser's. Returns `urls(writer_url, prefix)`.
    """
    made = urls(writer_url, prefix)
    for source, url in made.items():
        create_database(admin_url, prefix + source)
        with psycopg.connect(url) as session:
            session.execute(_file(source).read_bytes())
    return made


def _file(source: str) -> Path:
    return _FILES / ("gateway.sql" if source in GATEWAYS else f"{source}.sql")
