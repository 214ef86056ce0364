"""How far consumers are behind a snapshot, and when it has to wait for them; how fast it goes."""

import threading
from collections.abc import Iterator

import pytest

from devstack.process import wait_until
from pipeline.capture.backlog import Backlog, waiting_records
from pipeline.capture.pace import Pace
from pipeline.errors import TransientError
from pipeline.telemetry import ProcessState


def beat(process: str, **metrics: float) -> ProcessState:
    return ProcessState(process, "host", 1, 0.0, 0.0, dict(metrics))


class Consumers:
    """What heartbeats say, and how many rows were published; asked from another thread."""

    def __init__(self) -> None:
        self.states: list[ProcessState] = []
        self.published = 0
        self.asked = threading.Event()
        self.away = False

    def processes(self) -> list[ProcessState]:
        self.asked.set()
        if self.away:
            raise TransientError("Redis does not answer")
        return self.states


@pytest.fixture
def consumers() -> Consumers:
    return Consumers()


@pytest.fixture
def backlog(consumers: Consumers) -> Iterator[Backlog]:
    made = Backlog(consumers.processes, lambda: consumers.published, 1000)
    yield made
    made.close()


def test_bridges_of_one_consumer_count_together_and_the_slowest_consumer_decides(
    consumers: Consumers, backlog: Backlog
) -> None:
    # Mutants: consumers added up (a second one would halve the bound); bridges one by one.
    consumers.states = [
        beat("bridge-search", snapshot_lag=600),
        beat("bridge-warehouse", snapshot_lag=700),
        beat("capture-shop", snapshot_lag=9999),
        beat("bridge-audit", lag=9999),
    ]
    assert waiting_records(consumers.states) == {"search": 600, "warehouse": 700}
    assert backlog.hindrance() == ""
    assert consumers.asked.wait(5) and backlog.hindrance() == ""
    consumers.states.append(beat("bridge-search", snapshot_lag=500))
    assert wait_until(lambda: "consumer search has 1,100" in backlog.hindrance(), 5, pause=0.01)
    consumers.states = []
    assert wait_until(lambda: backlog.hindrance() == "", 5, pause=0.01)


def test_what_was_published_since_the_answer_counts_until_the_next(
    consumers: Consumers, backlog: Backlog
) -> None:
    # Mutant: without it a fast snapshot overshoots by what it publishes between two heartbeats; with Redis away, for ever.
    consumers.away = True
    assert backlog.hindrance() == ""
    consumers.published = 1000
    assert backlog.hindrance() == ""
    consumers.published = 1001
    assert "1,001 records since" in backlog.hindrance()
    assert consumers.asked.wait(5)
    consumers.away = False
    assert wait_until(lambda: backlog.hindrance() == "", 5, pause=0.01)


def test_the_pace_is_that_of_the_last_half_minute() -> None:
    # Mutant: over the whole time, an hour of waiting would count against what is left.
    pace = Pace()
    assert pace.seconds_for(10) is None and pace.seconds_for(0) == 0.0
    for second in range(100):
        pace.count(second, 10 * second)
    for second in range(100, 140):
        pace.count(second, 1000 + 100 * (second - 100))
    assert pace.per_second == pytest.approx(100)
    assert pace.seconds_for(500) == pytest.approx(5)
    pace.count(141, 0)
    assert pace.seconds_for(10) is None
