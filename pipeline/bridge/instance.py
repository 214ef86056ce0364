"""Bridges with a name of their own: one that comes back under it keeps its partitions, and no two run under one."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.control.database import ControlDatabase
from pipeline.control.flights import single_flight
from pipeline.errors import PermanentError

INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,200}")
_PATIENCE, _PAUSE = 15, 1.0  # times and seconds: the one before may be on its way out


@contextmanager
def only_one(url: str, group: str, instance: str | None, stop: threading.Event) -> Iterator[None]:
    """Hold the name as long as this runs, if there is one; PermanentError when another process has it.

    Kafka itself would throw the other one out instead, which comes back and throws this one out.
    """
    if instance is None:
        yield
        return
    for _ in range(_PATIENCE):
        with single_flight(ControlDatabase(url), f"bridge {group} {instance}") as alone:
            if alone:
                yield
                return
        if stop.wait(_PAUSE):
            break
    raise PermanentError(
        f"another process runs as instance {instance} of group {group}",
        hint="give each bridge an --instance of its own, or none",
    )
