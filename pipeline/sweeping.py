"""Carrying out sweeps: each once its consumer has passed it everywhere, one at a time per consumer, until it is recorded.

A hint to look carries no duty: whoever comes finds what is due in the control database. A sweep is idempotent, so one
whose runner died, or whose record is missing, is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Literal

from pipeline.consumer import SinkUnavailableError, SweepOrder
from pipeline.control import flights, sweeps
from pipeline.control.database import ControlDatabase
from pipeline.errors import PipelineError, TransientError
from pipeline.failpoints import passes
from pipeline.settings import Settings, Topic, seconds

SweepFunction = Callable[[SweepOrder], int]
"""Carries out one order and returns how many rows it removed."""
# A bridge may hold a record for longer than its topic does, and pass it then.
_KEPT_RETENTIONS = 2


@dataclass(frozen=True, slots=True)
class Sweeper:
    """A consumer that can sweep: what it reads, the topic of changes first, and its function."""

    consumer: str
    topics: Sequence[Topic]
    sweep: SweepFunction


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one sweep. All but ``swept`` are tried again at the next hint.

    ``waits``: its sink is not ready for it yet. ``unavailable``: its sink does not accept. ``failed``: anything else.
    """

    consumer: str
    sweep: str
    status: Literal["swept", "waits", "unavailable", "failed"]
    rows: int = 0
    error: str = ""

    def facts(self) -> dict[str, str | int]:
        """For a log line."""
        return asdict(self)


def sweep_of(handler: str) -> SweepFunction | None:
    """The function ``sweep`` beside a handler ``module:function``; None without one, or without the module."""
    try:
        found = getattr(import_module(handler.partition(":")[0]), "sweep", None)
    except Exception:  # noqa: BLE001  anybody's module; whoever needs its handler says what is wrong with it
        return None
    function: SweepFunction | None = found if callable(found) else None
    return function


def sweepers(settings: Settings) -> list[Sweeper]:
    """The consumers of changes that can sweep."""
    return [
        Sweeper(name, settings.topics_of(name), function)
        for name, consumer in settings.configuration.consumers.items()
        if consumer.topic == "datastream" and (function := sweep_of(consumer.handler)) is not None
    ]


class Sweeping:
    """The sweeps of one deployment. Safe to run anywhere and twice."""

    def __init__(self, settings: Settings) -> None:
        self._control_url = settings.environment.control_database_url.get_secret_value()
        self._keep = _KEPT_RETENTIONS * seconds(settings.datastream.retention)
        self._sweepers = sweepers(settings)

    def run_due(self) -> list[Report]:
        """Run every sweep that is due, and forget those that nobody will run; a consumer busy elsewhere is left alone."""
        with closing(ControlDatabase(self._control_url)) as database:
            reports = [
                report
                for one in self._sweepers
                if sweeps.due(database, one.consumer, one.topics)
                for report in self._run(database, one)
            ]
            sweeps.expire(database, {one.consumer: one.topics for one in self._sweepers}, self._keep)
        return reports

    def _run(self, database: ControlDatabase, sweeper: Sweeper) -> list[Report]:
        reports: list[Report] = []
        with flights.single_flight(ControlDatabase(self._control_url), f"sweeps {sweeper.consumer}") as alone:
            # Looked up again: whoever held the lock before may have run them.
            down: set[str] = set()  # types: one whose index is missing holds up no other
            for order in sweeps.due(database, sweeper.consumer, sweeper.topics) if alone else ():
                if order.type not in down:
                    reports.append(_carry_out(database, sweeper, order))
                    down |= {order.type} if reports[-1].status == "unavailable" else set()
        return reports


def _carry_out(database: ControlDatabase, sweeper: Sweeper, order: SweepOrder) -> Report:
    try:
        rows = sweeper.sweep(order)
    except SinkUnavailableError as error:
        return Report(order.consumer, order.id, "unavailable", error=str(error))
    except TransientError as error:
        return Report(order.consumer, order.id, "waits", error=str(error))
    except Exception as error:  # noqa: BLE001  anybody's function; the sweeps of others must not wait for it
        said = str(error) if isinstance(error, PipelineError) else type(error).__name__
        return Report(order.consumer, order.id, "failed", error=said)
    passes("sweep.carried_out")
    sweeps.finished(database, order, rows)
    passes("sweep.recorded")
    return Report(order.consumer, order.id, "swept", rows)
