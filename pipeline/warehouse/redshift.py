"""Redshift as a control channel: a dozen statements per batch, rows only ever by way of S3.

The only file that knows redshift_connector. One connection per batch: the driver remembers every statement's text for
the life of a connection. Its exception classes say nothing (a serialization failure is a ``ProgrammingError``), so
errors are told apart by the dictionary they carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import redshift_connector
from redshift_connector.error import Error

from pipeline.errors import PermanentError, TransientError

_STATEMENT_SECONDS = 900
# Classes of SQLSTATE: connection, resources, operator intervention, authorisation (a password being rotated).
_TRANSIENT_CLASSES = ("08", "53", "57", "28")
_TRANSIENT_CODES = ("40001", "40P01", "55P03")
_SERIALIZATION = re.compile(r"\b1023\b")
_S3_TROUBLE = re.compile(
    r"S3ServiceException(?!.*\b(?:Status 40[034]|NoSuchKey|NoSuchBucket|AccessDenied)\b)", re.S
)


class WarehouseUnavailableError(TransientError):
    """Redshift does not answer, or asks for the whole transaction to be tried again."""


class StatementRefusedError(PermanentError):
    """Redshift refused a statement; ``code`` is its SQLSTATE."""

    def __init__(self, what: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.code = code


class Session:
    """One connection. Statements run in one transaction until ``commit``, unless it was opened to autocommit."""

    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor()
        self._connection = connection

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run one statement; returns the number of rows it changed where Redshift tells."""
        with translated():
            self._cursor.execute(statement, tuple(values))
            return int(self._cursor.rowcount)

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[list[Any]]:
        """The rows of a query, all of them: the driver buffers results, so page what may be large."""
        with translated():
            self._cursor.execute(statement, tuple(values))
            return [list(row) for row in self._cursor.fetchall()]

    def commit(self) -> None:
        """Commit; after WarehouseUnavailableError the outcome is unknown."""
        with translated():
            self._connection.commit()

    def rollback(self) -> None:
        """Forget the transaction."""
        with translated():
            self._connection.rollback()

    def close(self) -> None:
        """End the connection; what is not committed is gone."""
        with suppress(Error, OSError):
            self._connection.close()


@contextmanager
def session(url: str, *, autocommit: bool = False) -> Iterator[Session]:
    """A connection over TLS that checks the server's name. `url` is redshift://user:password@host:port/database."""
    with translated():
        connection = _connect(url)
        connection.autocommit = autocommit
        opened = Session(connection)
    try:
        # The server must give its locks back even when we are gone.
        opened.run(f"SET statement_timeout TO {_STATEMENT_SECONDS * 1000}")
        if not autocommit:
            opened.commit()  # the loader's first statement must be LOCK: it decides what the transaction sees
        yield opened
    finally:
        opened.close()


def _connect(url: str) -> Any:
    parts = urlsplit(url)
    return redshift_connector.connect(
        host=parts.hostname,
        port=parts.port or 5439,
        database=parts.path.strip("/"),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        sslmode="verify-full",
        timeout=_STATEMENT_SECONDS + 60,  # of every read from the socket, so above any statement's own limit
        max_prepared_statements=0,
        tcp_keepalive=True,
        tcp_keepalive_idle=60,
        tcp_keepalive_interval=15,
        tcp_keepalive_count=4,
        application_name="pipeline",
    )


@contextmanager
def translated() -> Iterator[None]:
    """The driver's errors as ours, never with its message's values: Redshift puts none into messages, only details."""
    try:
        yield
    except Error as error:
        raise _error(error) from error
    except OSError as error:  # a broken or timed-out socket comes through bare
        raise WarehouseUnavailableError(
            f"Redshift does not answer: {type(error).__name__}", hint="see REDSHIFT_URL"
        ) from error


def _error(error: Error) -> WarehouseUnavailableError | StatementRefusedError:
    told = error.args[0] if error.args else ""
    if not isinstance(told, dict):
        return WarehouseUnavailableError(f"Redshift does not answer: {told}", hint="see REDSHIFT_URL")
    code, message = str(told.get("C", "")), str(told.get("M", ""))
    if is_transient(code, message):
        return WarehouseUnavailableError(f"Redshift: {message} ({code})")
    return StatementRefusedError(f"Redshift: {message} ({code})", code=code)


def is_transient(code: str, message: str) -> bool:
    """True when the whole transaction may succeed later: 1023, deadlock, lost connection, trouble reading S3."""
    return (
        code in _TRANSIENT_CODES
        or code[:2] in _TRANSIENT_CLASSES
        or _SERIALIZATION.search(message) is not None
        or _S3_TROUBLE.search(message) is not None
    )
