"""Sessions on a source database: every value reads alike in all of them, and in the triggers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow

from pipeline.capture.pooling import require_own_session
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
# The server ends the session of a client whose host has vanished, and with it the client's lock: idle after 2 + 2 s
# of silence, sending after 4 s, in the middle of a statement at the next look.
_MORTALITY: dict[LiteralString, LiteralString] = {
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "4000",
    "client_connection_check_interval": "1000",
}
_SETTINGS = {
    **TEXT_SETTINGS,
    **_MORTALITY,
    "lc_monetary": MONETARY_LOCALE,
    "search_path": "pg_catalog, pg_temp",
    "work_mem": "64MB",
    "jit": "off",
}


def connect(url: str) -> Connection:
    """A session in autocommit whose text is canonical; TransientError when no primary answers.

    The role's and the database's defaults are overruled, so no DBA's setting changes what is captured. Several hosts in
    the URL are tried in turn.
    """
    connection = _open(url)
    try:
        require_own_session(connection, lambda: _open(url))
        connection.execute(_SET, (list(_SETTINGS), list(_SETTINGS.values())))
    except BaseException:
        connection.close()
        raise
    return connection


# What a server does not know, an older one, is left out.
_SET = """
SELECT set_config(given.name, given.value, false)
FROM unnest(%s::text[], %s::text[]) AS given (name, value) JOIN pg_catalog.pg_settings USING (name)
"""


def _open(url: str) -> Connection:
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=5,
            application_name="pipeline capture",
            target_session_attrs="read-write",
            # A server that has gone dark is noticed within 20 s, not when TCP gives up.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=2,
            tcp_user_timeout=20_000,
        )
    except psycopg.OperationalError as error:
        raise TransientError(f"source database does not answer: {_first_line(error)}") from error


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


def of_the_data(error: psycopg.Error) -> bool:
    """True when the statement fails on what it reads, however often it is tried: a type, a name, a limit, a right.

    False when the session, the server or another transaction is the reason.
    """
    return error.sqlstate is not None and error.sqlstate[:2] in _OF_THE_DATA


# Data exceptions; names, types and rights; limits of the program; "invalid memory alloc request size" is internal.
_OF_THE_DATA = frozenset({"21", "22", "38", "39", "42", "54", "XX"})


def _first_line(error: psycopg.Error) -> str:
    """The driver's first line: later ones quote statements, and with them perhaps row contents."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
