"""Handlers are imported as a worker imports them that is started here: the working directory comes first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def working_directory() -> Iterator[None]:
    """Modules in the working directory can be imported meanwhile."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")
