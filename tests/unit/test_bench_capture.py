"""The pure parts of `bench capture`: what it reads from its tools, the order of its rounds, its figures and bars."""

import pytest

from bench.capture.commits import Commits, Seen, between
from bench.capture.draining import Drained
from bench.capture.observer import note
from bench.capture.pgbench import rate_in
from bench.capture.report import BARS, met
from bench.capture.result import Result
from bench.capture.site import Client
from bench.capture.snapshots import Copied, Look, eta_error
from bench.capture.tables import BARE, BY_ROW, BY_STATEMENT, JSONTRIGA
from bench.capture.writers import WRITTEN, Cell, Writers, order, script

OUTPUT = """transaction type: pgbench.sql
number of clients: 4
latency average = 0.321 ms
initial connection time = 12.345 ms
tps = 12456.789012 (without initial connection time)
"""


def test_the_rate_that_pgbench_prints() -> None:
    assert rate_in(OUTPUT) == 12456.789012
    with pytest.raises(ValueError, match="no tps"):
        rate_in("pgbench: error")


def test_every_round_has_every_cell_once_and_each_begins_with_another() -> None:
    first, second = order(0), order(1)
    assert len(first) == len(set(first)) == 2 * sum(map(len, WRITTEN.values()))
    assert set(first) == set(second)
    assert first[0] != second[0]
    assert first[0].operation == second[0].operation


def test_scripts_name_their_table_and_leave_only_pgbenchs_own_variables() -> None:
    for cell in order(0):
        text = script(cell.operation, cell.table)
        assert f" {cell.table} " in text
        assert "{" not in text
    assert ":number" in script("insert", BARE)
    assert ":" not in script("bulk", BARE)


def _writers() -> Writers:
    rates: dict[Cell, list[float]] = {}
    for cell in order(0):
        base = {"insert": 1000.0, "update": 800.0, "bulk": 100.0}[cell.operation]
        share = {BARE: 1.0, BY_ROW: 0.5, BY_STATEMENT: 0.3, JSONTRIGA: 0.6}[cell.table]
        rates[cell] = [base * share * pace for pace in (0.5, 1.0, 2.0)]
    rates[Cell("insert", BY_ROW, False)] = [300.0, 450.0, 450.0]
    return Writers(300.0, rates)


def test_ratios_are_of_medians_and_rounds_show_their_spread() -> None:
    writers = _writers()
    assert writers.ratio("insert", BY_ROW) == 0.45
    assert writers.ratio("insert", BY_ROW, durable=True) == 0.5
    assert writers.ratios("insert", BY_ROW) == [0.6, 0.45, 0.225]


def _drained(client: Client, seconds: float, cpu: float) -> Drained:
    return Drained(client, 1000, seconds, {"relay": cpu, "kafka": 1.0}, 1.0)


def test_figures_are_medians_and_only_of_what_was_measured() -> None:
    result = Result(
        writers=_writers(),
        drained=[
            _drained("none", 0.01, 0.001),
            *(_drained("kafka-python", seconds, seconds) for seconds in (0.04, 0.05, 0.1)),
        ],
        commits=Commits(2000.0, [float(ms) for ms in range(1, 100)], {}),
        copied=[Copied(1000, 0.1, 0.0)],
        peaks={200: 100_000_000, 1000: 105_000_000},
    )
    assert result.figures() == {
        "relay_events_per_s": 100_000.0,
        "relay_with_kafka_events_per_s": 20_000.0,
        "relay_cpu_us_per_event": 50.0,
        "commit_to_kafka_p50_ms": 50.0,
        "commit_to_kafka_p99_ms": 99.0,
        "writer_insert_ratio": 0.45,
        "writer_update_ratio": 0.5,
        "writer_bulk_ratio": 0.3,
        "writer_vs_jsontriga_ratio": 0.75,
        "snapshot_rows_per_s": 10_000.0,
        "relay_memory_growth": 0.05,
    }
    assert Result().figures() == {}


def test_bars_have_a_side() -> None:
    assert met("relay_with_kafka_events_per_s", 20_000)
    assert not met("relay_with_kafka_events_per_s", 19_999)
    assert met("commit_to_kafka_p99_ms", 25)
    assert not met("commit_to_kafka_p99_ms", 25.1)
    assert {side for side, _ in BARS.values()} == {"≥", "≤"}


def test_a_row_is_seen_once_and_only_when_it_is_new() -> None:
    seen: dict[str, float] = {}
    created = b'{"e":1,"op":"c","before":null,"after":{"id":1,"request_id":"r1"}}'
    updated = b'{"e":1,"op":"u","before":{"request_id":"r2"},"after":{"request_id":"r2"}}'
    note(seen, [created, updated], 5.0)
    note(seen, [created], 6.0)
    assert seen == {"r1": 5.0}


def test_every_commit_must_have_been_seen() -> None:
    committed = [Seen("r1", 1.0), Seen("r2", 2.0)]
    assert between(committed, {"r1": 1.25, "r2": 2.5}) == [250.0, 500.0]
    with pytest.raises(RuntimeError, match="1 of 2"):
        between(committed, {"r1": 1.25})


def test_thirds_of_a_run_show_its_spread() -> None:
    commits = Commits(2000.0, [1.0] * 10 + [2.0] * 10 + [3.0] * 9, {})
    assert commits.spread(50) == [1.0, 2.0, 3.0]


def test_the_time_left_is_judged_against_what_came() -> None:
    even = [Look(float(second), 100 * second, 1000) for second in range(11)]
    assert eta_error(even) == pytest.approx(0)
    half_unforeseen = [Look(float(second), 100 * second, 500) for second in range(11)]
    assert eta_error(half_unforeseen) == pytest.approx(0.5)
    waited = [Look(0.0, 0, 1000), *(Look(one.seconds + 10, one.published, 1000) for one in even)]
    assert eta_error(waited) == pytest.approx(0)
