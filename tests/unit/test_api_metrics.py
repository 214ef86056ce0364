"""Heartbeats as Prometheus reads them."""

from dataclasses import asdict

from pipeline.api.metrics import COUNTERS, exposition
from pipeline.capture.watch import Metrics
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
