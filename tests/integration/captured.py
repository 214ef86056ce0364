"""A source database under capture, read without Kafka: what the relay would publish, as events."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pipeline import settings
from pipeline.capture import disabling, install, uninstall
from pipeline.capture.envelope import Envelopes
from pipeline.capture.install import Installed
from pipeline.capture.queue import Batch, Queue
from pipeline.capture.session import Connection, session
from pipeline.control.database import ControlDatabase
from pipeline.domain.event import Event, decode
from pipeline.domain.table import Table
from tests.conftest import SourceDatabase

NAME = "shop"


@dataclass(slots=True)
class Captured:
    """One source and its control database; `run` is the application, `drain` the relay."""

    source: SourceDatabase
    database: ControlDatabase
    tables: list[Table] = field(default_factory=list)

    def run(self, *statements: str) -> None:
        """Run statements as the application, each in a transaction of its own."""
        with self.writer() as writer:
            for statement in statements:
                writer.execute(statement.encode())

    @contextmanager
    def writer(self) -> Iterator[Connection]:
        """A session of the application, in autocommit."""
        with psycopg.connect(self.source.writer_url, autocommit=True) as connection:
            yield connection

    def install(self, dry_run: bool = False, /, **merchants: str) -> Installed:
        """Capture tables of schema public: `table="its merchant column"`."""
        return self.install_source(configured(**merchants), dry_run=dry_run)

    def install_tables(self, **tables: dict[str, Any]) -> Installed:
        """Capture tables of schema public, as `choose` says."""
        return self.install_source(self.choose(tables))

    @staticmethod
    def choose(tables: dict[str, dict[str, Any]], **more: Any) -> settings.Source:
        """The settings of tables of schema public; their merchant is `merchant_id` unless they say otherwise."""
        named = {
            f"public.{name}": {"merchant": {"column": "merchant_id"}, **options}
            for name, options in tables.items()
        }
        return settings.Source.model_validate({"tables": named, **more})

    def install_source(self, source: settings.Source, *, dry_run: bool = False) -> Installed:
        """Capture what the settings of a source say."""
        done = install.install(self.database, NAME, source, self.source.url, actor="test", dry_run=dry_run)
        if not dry_run:
            self.tables = list(done.tables)
        return done

    def enable(self, **merchants: str) -> Installed:
        """Capture again after it was disabled."""
        return self.enable_source(configured(**merchants))

    def enable_source(self, source: settings.Source) -> Installed:
        """Capture again what the settings of a source say."""
        return install.enable(self.database, NAME, source, self.source.url, actor="test")

    def disable(self, reason: str) -> disabling.Disabled:
        """The emergency switch."""
        return disabling.disable(self.source.url, NAME, reason)

    def uninstall(self, *, dry_run: bool = False) -> list[str]:
        """Take it out again."""
        return uninstall.uninstall(
            self.database, NAME, self.source.url, actor="test", reason="a test", dry_run=dry_run
        )

    def drain(self) -> list[Event]:
        """Tick, and finish everything there is."""
        with session(self.source.url) as connection:
            queue = Queue(connection)
            queue.tick()
            return list(self.batches(queue))

    def batches(self, queue: Queue) -> Iterator[Event]:
        """The events of all batches up to the last tick, finished as they are read."""
        while (batch := queue.next_batch()) is not None:
            yield from self.events(queue, batch)
            queue.finish(batch)

    def events(self, queue: Queue, batch: Batch) -> Iterator[Event]:
        """One batch as its consumers decode it."""
        envelopes = Envelopes(NAME, self.tables)
        for event in queue.events(batch):
            value = envelopes.change(event, batch, 0)
            if value is not None:
                yield decode(value, event.merchant)


def configured(**merchants: str) -> settings.Source:
    """The settings of a source with these tables of schema public."""
    return settings.Source(
        tables={
            f"public.{table}": settings.SourceTable(merchant=settings.Merchant(column=column))
            for table, column in merchants.items()
        }
    )
