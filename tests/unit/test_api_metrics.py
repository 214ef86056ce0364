"""Heartbeats as Prometheus reads them."""

from dataclasses import asdict

from pipeline.api.metrics import COUNTERS, Held, exposition, held_exposition
from pipeline.capture.watch import Metrics
from pipeline.control.lane_views import Counts
from pipeline.telemetry import ProcessState
from tests.conftest import REPO


def state(process: str, pid: int, **metrics: float | int | str) -> ProcessState:
    return ProcessState(process, "host", pid, 0.0, 99.0, dict(metrics))


def test_each_metric_has_one_type_and_a_sample_per_process() -> None:
    states = [
        state("capture-gateway0", 1, lag_seconds=1.5, alarms="the relay is 400 s behind"),
        state("capture-gateway1", 2, lag_seconds=0.0, alarms=""),
        state('worker:search,"x"', 3, turns=7),
    ]
    assert exposition(states, 100.0).splitlines() == [
        "# TYPE pipeline_capture_alarms gauge",
        'pipeline_capture_alarms{name="gateway0",host="host",pid="1"} 1',
        'pipeline_capture_alarms{name="gateway1",host="host",pid="2"} 0',
        "# TYPE pipeline_capture_beat_age_seconds gauge",
        'pipeline_capture_beat_age_seconds{name="gateway0",host="host",pid="1"} 1.0',
        'pipeline_capture_beat_age_seconds{name="gateway1",host="host",pid="2"} 1.0',
        "# TYPE pipeline_capture_lag_seconds gauge",
        'pipeline_capture_lag_seconds{name="gateway0",host="host",pid="1"} 1.5',
        'pipeline_capture_lag_seconds{name="gateway1",host="host",pid="2"} 0.0',
        "# TYPE pipeline_worker_beat_age_seconds gauge",
        'pipeline_worker_beat_age_seconds{name="search,\\"x\\"",host="host",pid="3"} 1.0',
        "# TYPE pipeline_worker_turns counter",
        'pipeline_worker_turns{name="search,\\"x\\"",host="host",pid="3"} 7',
    ]


def test_what_only_grows_is_a_counter() -> None:
    # Mutant: a counter under a name that no process tells any more.
    told = {f"capture_{name}" for name in asdict(Metrics())}
    page = (REPO / "docs" / "metrics.md").read_text()
    assert {name for name in COUNTERS if name.startswith("capture_")} <= told
    assert all(f"`{name.partition('_')[2]}`" in page for name in COUNTERS)


def test_what_is_held_is_told_of_every_consumer() -> None:
    # Mutant: only consumers with detached lanes are told of, so an alarm on the others never ends.
    held = Held({"search": Counts(12, 3, 1, 2)}, {"warehouse"}, 4)
    assert held_exposition(held, ["search", "warehouse"]).splitlines() == [
        "# TYPE pipeline_consumer_paused gauge",
        'pipeline_consumer_paused{name="search"} 0',
        'pipeline_consumer_paused{name="warehouse"} 1',
        "# TYPE pipeline_control_up gauge",
        "pipeline_control_up 1",
        "# TYPE pipeline_lanes_detached gauge",
        'pipeline_lanes_detached{name="search",state="running"} 12',
        'pipeline_lanes_detached{name="search",state="paused"} 3',
        'pipeline_lanes_detached{name="search",state="parked"} 1',
        'pipeline_lanes_detached{name="warehouse",state="running"} 0',
        'pipeline_lanes_detached{name="warehouse",state="paused"} 0',
        'pipeline_lanes_detached{name="warehouse",state="parked"} 0',
        "# TYPE pipeline_lanes_requests gauge",
        'pipeline_lanes_requests{name="search"} 2',
        'pipeline_lanes_requests{name="warehouse"} 0',
        "# TYPE pipeline_merchants_moving gauge",
        "pipeline_merchants_moving 4",
    ]


def test_without_the_control_database_nothing_is_said_to_be_held_or_free() -> None:
    assert held_exposition(None, ["search"]).splitlines() == [
        "# TYPE pipeline_control_up gauge",
        "pipeline_control_up 0",
    ]
