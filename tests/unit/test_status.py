from dataclasses import replace
from datetime import UTC, datetime

from pipeline.cli.status import missing_processes
from pipeline.cli.status_screen import in_words, near_retention
from pipeline.cli.status_state import ConsumerState, State
from pipeline.control.lane_views import Counts
from pipeline.control.snapshots import Snapshot
from pipeline.lanes.claim import Overview
from pipeline.settings import Configuration
from pipeline.telemetry import ProcessState

TABLES = {"public.payments": {"merchant": {"column": "merchant_id"}}}
CONFIGURED = Configuration.model_validate(
    {
        "deployment": {"name": "payments"},
        "sources": {"shop": {"tables": TABLES}},
        "consumers": {"search": {"handler": "tasks.search:index"}, "audit": {"handler": "own.audit:keep"}},
    }
)
ALL = (
    "capture-shop",
    "bridge-search",
    "bridge-audit",
    "beat",
    "worker:audit,loads",
    "worker:sweeps",
    "worker:search",
)


def beating(*names: str) -> list[ProcessState]:
    return [ProcessState(name, "host", 1, 0.0, 0.0, {}) for name in names]


def test_nothing_is_missing_when_every_process_beats() -> None:
    assert missing_processes(CONFIGURED, beating(*ALL, "web"), sweeping=True) == []


# Mutant: only bridges are asked for.
def test_each_process_that_does_not_beat_is_named() -> None:
    for gone in (*ALL[:-3], "worker:search"):
        rest = beating(*(name for name in ALL if name != gone))
        assert missing_processes(CONFIGURED, rest, sweeping=True) == [gone]


# Mutant: nobody asks for a worker on `sweeps`.
def test_sweeps_that_nobody_takes_are_named_where_a_consumer_can_sweep() -> None:
    rest = beating(*(name for name in ALL if name != "worker:sweeps"))
    assert missing_processes(CONFIGURED, rest, sweeping=True) == ["worker:sweeps"]
    assert missing_processes(CONFIGURED, rest, sweeping=False) == []


# Mutant: only the newest request is looked at, so one in work is hidden by those that wait for it.
def test_an_open_snapshot_says_how_far_it_is_and_what_it_waits_for() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    work = Snapshot(
        7, "shop", None, None, None, "running", False, 1, 5000, 1234, "public.payments", began, began, None
    )
    assert in_words(work, 1) == "public.payments, 1,234 of about 5,000 rows"
    assert in_words(replace(work, paused=True), 3) == "paused, 1,234 of about 5,000 rows; 2 more"
    assert in_words(replace(work, status="done", finished_at=began), 0) == "done, 1,234 rows"


# Mutants: parked lanes, which are not among the failing ones of Redis, need nobody; paused ones do.
def test_a_parked_lane_needs_a_person_and_a_paused_one_has_one() -> None:
    idle = Overview(0, 0, 0, (), 0, (), 0)
    well = ConsumerState("search", 0, 0, 0.0, idle, 0, Counts(running=3, paused=2), (), None)
    assert State([], [well], [], [], [], [], []).healthy
    ill = replace(well, detached=Counts(parked=1))
    assert not State([], [well, ill], [], [], [], [], []).healthy
    assert not State([], [well], [], [], [], [], [], [replace(idle, failing_count=1)]).healthy


# Mutant: only the heartbeat table shows it, among thirty numbers.
def test_detached_lanes_near_retention_are_said_in_words() -> None:
    calm = {"aging_lanes": 0, "detached_age_s": 0.0, "copying_fails": 0, "lost_lanes": 0}
    bridge = ProcessState("bridge-audit", "host", 1, 0.0, 0.0, {**calm})
    assert list(near_retention([bridge, *beating("beat")])) == []
    troubled = replace(
        bridge,
        metrics={"aging_lanes": 2, "detached_age_s": 200_000.0, "copying_fails": 1, "lost_lanes": 1},
    )
    assert list(near_retention([troubled])) == [
        "bridge-audit: 2 detached lanes wait for more than a quarter of the retention, the longest for 55.6 h",
        "bridge-audit: records of detached lanes are not copied to S3; see its log",
        "bridge-audit: 1 detached lanes wait for records that passed retention; see their reasons",
    ]
