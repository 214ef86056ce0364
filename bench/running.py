"""How a bench begins and ends: alone, with the services' addresses, on a deployment that is taken away whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from bench import screen
from bench.guard import alone
from bench.site import REPO, Site
from devstack import run as devstack_run
from devstack.home import here
from pipeline.errors import ConfigurationError

_LOCK = REPO / ".devstack" / "bench.lock"
Kind = TypeVar("Kind", bound=Site)


@contextmanager
def prepared(*, anyway: bool) -> Iterator[tuple[dict[str, str], Console, list[str]]]:
    """The services' variables, where to print, and what is at work beside this bench; BusyError unless `anyway`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # takes the deployment away, as Ctrl-C does
    variables = _environment()
    with alone(_LOCK, variables["REDIS_URL"], anyway=anyway) as beside:
        yield variables, screen.console(), beside


@contextmanager
def running(kind: type[Kind], variables: dict[str, str], console: Console, *, keep: bool) -> Iterator[Kind]:
    """The bench's deployment; what it made is gone at the end, its logs only when all went well."""
    directory = Path(tempfile.mkdtemp(prefix="pipeline-bench-"))
    site = kind(directory, variables)
    done = False
    try:
        with console.status(f"making the deployment {site.NAME}"):
            site.create()
        yield site
        done = True
    finally:
        site.stop()
        if not keep:
            with console.status("taking the deployment away"):
                site.destroy()
        if done and not keep:
            shutil.rmtree(directory)
        else:
            console.print(f"logs: {directory}/logs")


def _environment() -> dict[str, str]:
    """The services' addresses; into this process's environment too, because clients look there."""
    variables = devstack_run.environment(here())
    needed = ("DEVSTACK_POSTGRES_URL", "EXAMPLE_WRITER_URL", "CONTROL_DATABASE_URL", "REDIS_URL")
    missing = tuple(
        f"environment: {name} is required; run `make up`" for name in needed if name not in variables
    )
    if missing:
        raise ConfigurationError(missing)
    os.environ.update(variables)
    return variables
