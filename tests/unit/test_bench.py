"""The pure parts of the bench: its rows, what it reads from /proc, what it refuses to run beside, its figures."""

import os
from collections import Counter

import pytest

from bench.drain import Drain
from bench.e2e import Plan, Result
from bench.floor import Floor
from bench.guard import work_of
from bench.latency import Latency
from bench.load import MERCHANTS, Changes, Expected, chunks
from bench.proc import (
    Stat,
    differences,
    family,
    machine_seconds,
    parse_kilobytes,
    parse_stat,
    peak_bytes,
    read,
)
from bench.screen import spread
from bench.site import logged_at

COUNT = 20_000


def test_changes_fit_each_other_and_expected_is_what_is_left_of_them() -> None:
    changes = Changes(seed=3)
    rows: dict[int, int] = {}
    for change in changes.take(COUNT):
        if change.operation == "insert":
            assert change.id not in rows
        elif change.operation == "delete":
            del rows[change.id]
            continue
        rows[change.id] = change.seq
    assert changes.expected == Expected(len(rows), sum(rows.values()))
    assert changes.last == COUNT
    assert change.operation == "insert"


def test_changes_have_the_stated_mix_and_merchants_by_zipf() -> None:
    taken = list(Changes(seed=3).take(COUNT))
    mix = Counter(change.operation for change in taken)
    assert {name: round(count / COUNT, 2) for name, count in mix.items()} == {
        "insert": 0.70,
        "update": 0.25,
        "delete": 0.05,
    }
    busiest = Counter(change.merchant for change in taken if change.operation == "insert")
    assert busiest[1] > 1.5 * busiest[2] > 2 * busiest[10]
    assert max(busiest) <= MERCHANTS


def test_the_same_seed_makes_the_same_changes() -> None:
    assert list(Changes(seed=5).take(500)) == list(Changes(seed=5).take(500))
    assert list(Changes(seed=5).take(500)) != list(Changes(seed=6).take(500))


def test_nothing_touches_a_probe_again() -> None:
    changes = Changes(seed=1)
    probe = changes.insert(untouched=True)
    assert probe.id not in {change.id for change in changes.take(2000)}


def test_chunks_keep_order_and_lose_nothing() -> None:
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_process_may_be_called_anything() -> None:
    line = "71 (a) b (c) S 7 71 71 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0 100 0 0"
    assert parse_stat(line) == Stat(parent=7, ticks=110)


def test_a_family_is_everything_below() -> None:
    stats = {1: Stat(0, 0), 2: Stat(1, 0), 3: Stat(2, 0), 4: Stat(1, 0), 9: Stat(0, 0)}
    assert sorted(family(stats, 1)) == [1, 2, 3, 4]
    assert family(stats, 5) == []


def test_kilobytes_of_a_status() -> None:
    assert parse_kilobytes("VmPeak:\t  10 kB\nVmHWM:\t  3 kB\n", "VmHWM") == 3 * 1024
    assert parse_kilobytes("", "VmHWM") == 0


def test_this_process_has_used_cpu_and_memory() -> None:
    assert 0 < read().cpu_seconds(os.getpid()) < machine_seconds()
    assert peak_bytes(os.getpid()) > 1_000_000


def test_differences_count_from_nothing_for_what_is_new() -> None:
    assert differences({"a": 3.0, "b": 1.0}, {"a": 1.0}) == {"a": 2.0, "b": 1.0}


@pytest.mark.parametrize(
    ("line", "work"),
    [
        ("/x/python3 /x/.venv/bin/pipeline bridge search", "pipeline bridge search"),
        ("python -m pipeline capture run gateway0", "pipeline capture run"),
        ("/x/python3 -m celery -A tasks.app worker -Q search", "celery worker"),
        ("/x/python3 /x/bin/celery -A tasks.app beat", "celery beat"),
        ("/x/python3 /x/bin/pytest -q tests", "tests"),
        ("python -m pytest", "tests"),
        ("python -m example.demo", "demo"),
        ("python -m devstack.redshift serve", None),
        ("less pipeline bridge search", None),
        ("grep -r pipeline bridge", None),
        ("", None),
    ],
)
def test_what_the_bench_does_not_run_beside(line: str, work: str | None) -> None:
    assert work_of(line.split()) == work


def test_the_time_of_a_log_line() -> None:
    assert logged_at('{"event": "relaying", "timestamp": "1970-01-01T00:01:40.500000Z"}') == 100.5


def test_spread() -> None:
    assert spread([3.0]) == "3"
    assert spread([1000.0, 3000.0, 1500.0]) == "1,500 (1,000 to 3,000)"


def _round(searchable: float, cpu: float) -> Drain:
    return Drain(
        rows=1000,
        start_up=1.0,
        searchable=searchable,
        accepted=searchable,
        loaded=20.0,
        cpu={"relay": cpu, "kafka": 2 * cpu},
        cpu_drain={"relay": cpu, "kafka": cpu},
        busy_drain=1.0,
        peak={"relay": 50_000_000, "kafka": 400_000_000},
    )


def test_figures_are_medians_and_count_ours_apart_from_the_servers() -> None:
    result = Result(
        plan=Plan(rows=1000),
        image=392.0,
        idle={},
        floors=[Floor(100.0, {})],
        drains=[_round(1.0, 0.1), _round(2.0, 0.2), _round(4.0, 0.9)],
        latency=Latency(100, 100, 2500, {50: 80.0, 99: 200.04}, {50: 12.0, 99: 19.999}),
        ours=("relay",),
    )
    assert result.figures() == {
        "events_per_s": 500.0,
        "commit_to_searchable_p50_ms": 80.0,
        "commit_to_searchable_p99_ms": 200.0,
        "commit_to_warehouse_p99_s": 20.0,
        "cpu_us_per_event": 200.0,
        "server_cpu_us_per_event": 400.0,
        "peak_mb": 50.0,
    }
