"""Sessions on a source database: every value reads alike in all of them, and in the triggers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow

from pipeline.errors import PermanentError, TransientError

Connection = psycopg.Connection[TupleRow]

# A writer's own settings would otherwise decide how its row is written, and a reader's how it is read.
TEXT_SETTINGS: dict[LiteralString, LiteralString] = {
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "iso_8601",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
MONETARY_LOCALE: LiteralString = "C"  # two decimals
_SETTINGS = {
    **TEXT_SETTINGS,
    "lc_monetary": MONETARY_LOCALE,
    "search_path": "pg_catalog, pg_temp",
    "work_mem": "64MB",
    "jit": "off",
}


def connect(url: str) -> Connection:
    """A session in autocommit whose text is canonical; TransientError when the database does not answer.

    The role's and the database's defaults are overruled, so no DBA's setting changes what is captured.
    """
    try:
        connection = psycopg.connect(
            url, autocommit=True, connect_timeout=5, application_name="pipeline capture", keepalives_idle=10
        )
    except psycopg.OperationalError as error:
        raise TransientError(f"source database does not answer: {_first_line(error)}") from error
    try:
        for name, value in _SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def session(url: str) -> Iterator[Connection]:
    """A session that is closed at the end; what the driver raises inside comes out as one of our errors."""
    with translated():
        connection = connect(url)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def translated() -> Iterator[None]:
    """The one table from psycopg's errors to ours: a lost or refused session may come back, the rest will not."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise TransientError(f"source database: {_first_line(error)}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise PermanentError(
            f"source database: {_first_line(error)}", hint="run: pipeline check, it names the missing right"
        ) from error
    except psycopg.Error as error:
        raise PermanentError(f"source database: {_first_line(error)}") from error


def _first_line(error: psycopg.Error) -> str:
    """The driver's first line: later ones quote statements, and with them perhaps row contents."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
