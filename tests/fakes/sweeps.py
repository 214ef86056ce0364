"""Sweeps as a consumer's bridges record them, and a consumer that writes down what it is told to sweep."""

from collections.abc import Callable

from pipeline.consumer import SweepOrder, Turn
from pipeline.control import sweeps
from pipeline.control.database import ControlDatabase
from pipeline.control.sweeps import Passage
from pipeline.domain.sweep import Sweep, Why
from pipeline.settings import Settings

FIRST_OFFSET = 100


def sweep_of(
    version: int,
    *,
    src: str = "gateway0",
    type_: str = "payment",
    merchant: str | None = None,
    why: Why = "truncate",
    name: str = "1:10",
) -> Sweep:
    """A sweep of a source's type below this version."""
    return Sweep(
        1, "sweep", f"{src}:{type_}:{name}", src, f"public.{type_}s", type_, merchant, str(version), why
    )


def passages(settings: Settings, consumer: str, sweep: Sweep) -> list[Passage]:
    """One for every partition that the consumer reads: in partition p of the n-th topic at 100 n + p."""
    return [
        Passage(sweep, topic.topic, partition, FIRST_OFFSET * place + partition)
        for place, topic in enumerate(settings.topics_of(consumer), 1)
        for partition in range(topic.partitions)
    ]


def pass_everywhere(database: ControlDatabase, settings: Settings, consumer: str, sweep: Sweep) -> SweepOrder:
    """The consumer has passed the sweep in all its partitions; what it is told to do then."""
    sweeps.passed(database, consumer, passages(settings, consumer, sweep))
    orders = sweeps.due(database, consumer, settings.topics_of(consumer))
    return next(order for order in orders if order.id == sweep.id)


# What ``[consumers.…] handler = "tests.fakes.sweeps:handle"`` was told, and what it does then.
told: list[SweepOrder] = []
answer: list[Callable[[SweepOrder], int]] = []


def handle(turn: Turn) -> None:
    """Accept everything."""
    for lane in turn:
        lane.done()


def sweep(order: SweepOrder) -> int:
    """Write it down and do as the test says."""
    told.append(order)
    return answer[-1](order)
