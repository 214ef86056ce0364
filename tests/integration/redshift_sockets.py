"""Connections that do not come about or are lost: the driver leaves their sockets to the garbage collector."""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redshift_connector.core import Connection
from redshift_connector.error import Error


@contextmanager
def abandoned_sockets() -> Iterator[None]:
    """Collect them on the way out, without the warning that would fail some later test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def refused_connection(connect: Callable[[], Connection]) -> Any:
    """What the driver says of a refused connection: a dict of the server's fields, or text."""
    with abandoned_sockets():
        return _said(connect)


def _said(connect: Callable[[], Connection]) -> Any:
    with pytest.raises(Error) as failure:
        connect()
    *words, said = failure.value.args
    return said if isinstance(said, dict) else f"{words} {said}"
