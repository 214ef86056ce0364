import threading
from collections.abc import Collection

from pipeline.errors import SinkUnavailableError
from pipeline.search.refresh import Pace, Refresher
from tests.fakes.search import OpenGate

DEADLINE = 10.0


def test_the_next_refresh_starts_an_interval_after_the_last_and_widens_with_its_duration() -> None:
    # Mutant: a fixed interval.
    pace = Pace(0.075)
    assert pace.opens("a") == 0
    pace.refreshed(["a"], started=100.0, ended=100.01)
    assert pace.opens("a") == 100.075
    assert pace.opens("b") == 0
    pace.refreshed(["a"], started=200.0, ended=200.5)
    assert pace.opens("a") == 201.0
    pace.refreshed(["a"], started=300.0, ended=300.01)
    assert pace.opens("a") == 300.075


class Recorder:
    """Stands where Elasticsearch does: records what it is asked, and can be held up or made to fail."""

    def __init__(self, failures: int = 0) -> None:
        self.asked: list[list[str]] = []
        self.failures = failures
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.enough = threading.Event()
        self.expected = 1

    def __call__(self, indices: Collection[str]) -> None:
        self.entered.set()
        assert self.leave.wait(DEADLINE)
        self.asked.append(sorted(indices))
        if len(self.asked) == self.expected:
            self.enough.set()
        if len(self.asked) <= self.failures:
            raise SinkUnavailableError("away")


def test_what_is_asked_for_during_a_refresh_is_refreshed_after_it() -> None:
    # Mutant: drop requests while a refresh runs. Its documents may be written after the refresh began.
    recorder = Recorder()
    recorder.expected = 2
    refresher = Refresher(recorder, OpenGate(), 0.001)
    refresher.request(["a"])
    assert recorder.entered.wait(DEADLINE)
    refresher.request(["a"])
    recorder.leave.set()
    assert recorder.enough.wait(DEADLINE)
    refresher.close()
    assert recorder.asked == [["a"], ["a"]]


def test_closing_refreshes_what_is_still_asked_for() -> None:
    recorder = Recorder()
    recorder.leave.set()
    refresher = Refresher(recorder, OpenGate(), 3600)
    refresher.request(["a"])
    assert recorder.enough.wait(DEADLINE)
    recorder.expected = 2
    refresher.request(["a"])  # due in an hour
    refresher.close()
    assert recorder.asked == [["a"], ["a"]]


def test_a_refresh_that_fails_is_tried_again() -> None:
    # Mutant: forget the indices of a failed refresh.
    recorder = Recorder(failures=1)
    recorder.expected = 2
    recorder.leave.set()
    refresher = Refresher(recorder, OpenGate(), 0.001)
    refresher.request(["a", "b"])
    assert recorder.enough.wait(DEADLINE)
    refresher.close()
    assert recorder.asked == [["a", "b"], ["a", "b"]]
