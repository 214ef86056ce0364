"""A deployment that the tests of one module share: only the processes they need, started once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.acceptance.deployment import SOURCES, Deployment
from tests.acceptance.writer import Writer
from tests.conftest import Stack, unique

BOTH_SINKS = (
    *(f"capture_{source}" for source in SOURCES),
    "bridge_search",
    "bridge_warehouse",
    "worker_search",
    "worker_warehouse",
    "beat",
)


@contextmanager
def deployed(stack: Stack, directory: Path, prefix: str) -> Iterator[Deployment]:
    """A deployment, created and not yet installed; everything it made is gone afterwards."""
    name = unique(prefix)
    place = directory / name
    place.mkdir()
    one = Deployment(name, place, stack.variables)
    try:
        one.create()
        yield one
    finally:
        one.destroy()


def start(deployment: Deployment, names: Sequence[str]) -> None:
    """Install capture and start these processes."""
    deployment.install()
    for name in names:
        deployment.supervisor.start(name)


@contextmanager
def busy_deployment(stack: Stack, directory: Path, prefix: str, seed: int) -> Iterator[Deployment]:
    """Two sources with rows that are older than the pipeline, both sinks, and traffic that never ends."""
    with deployed(stack, directory, prefix) as one:
        writer = Writer(one, seed=seed, pause=0.1)
        for source in SOURCES:
            writer.write(source, 50)
        start(one, BOTH_SINKS)
        for source in SOURCES:
            one.run("capture", "snapshot", source)
        writer.start()
        try:
            yield one
        finally:
            writer.stop()


def insert_steps(deployment: Deployment, source: str, merchant: str, count: int) -> list[str]:
    """Committed rows of a merchant; returns their keys as every sink encodes them."""
    with psycopg.connect(deployment.writer_url(source)) as session:
        rows = session.execute(
            "INSERT INTO steps (merchant_id, step, amount, note)"
            " SELECT %s, n, n + 0.25, 'by the application' FROM generate_series(1, %s) n RETURNING id",
            (merchant, count),
        ).fetchall()
    return [str(row[0]) for row in rows]


def touch_steps(deployment: Deployment, source: str, merchant: str) -> None:
    """Change every step of a merchant, so that each sink gets a newer version of it."""
    with psycopg.connect(deployment.writer_url(source)) as session:
        session.execute("UPDATE steps SET amount = amount + 1 WHERE merchant_id = %s", (merchant,))


def findings(report: dict[str, Any]) -> set[tuple[str, str, str, str, str]]:
    """(type, sink, finding, merchant, key) of everything that `pipeline verify --json` named."""
    return {
        (one["type"], one["sink"], *difference)
        for one in report["comparisons"]
        for difference in one["differences"]
    }
