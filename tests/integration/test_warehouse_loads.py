"""Staged parts become rows in Redshift: once, in whatever order they come, and whoever dies on the way."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from devstack.process import wait_until
from devstack.redshift import faults
from pipeline import settings
from pipeline.control import flights, parts, tables
from pipeline.control.database import ControlDatabase
from pipeline.control.parts import Due
from pipeline.domain.canonical import canonical
from pipeline.domain.table import Column, Table
from pipeline.errors import PermanentError
from pipeline.warehouse import transaction
from pipeline.warehouse.ledger import Entry
from pipeline.warehouse.loader import Loader
from pipeline.warehouse.reader import scan
from pipeline.warehouse.tables import check_tables, ensure_tables
from pipeline.warehouse.types import sink_table
from tests.conftest import REPO
from tests.integration.warehouse_deployment import COLUMNS, SHAPE, TYPES, Deployment, event, image

pytestmark = pytest.mark.integration


@pytest.fixture
def deployment(
    variables: Mapping[str, str], tmp_path: Path, control_url: str, warehouse_schema: str, s3_client: object
) -> Iterator[Deployment]:
    """Tables made, nothing staged."""
    made = Deployment(variables, tmp_path, control_url, warehouse_schema)
    yield made
    made.close()


def test_a_row_comes_back_as_it_was(deployment: Deployment) -> None:
    staged = deployment.stage(
        event("payment", "6", 1, 10), event("payment", "6", 2, 11, note=None, details=None, Amount="-0.01")
    )
    assert [lane.finished for lane in staged] == [2]
    [report] = deployment.loader().load_due()
    assert (report.type, report.status, report.applied, report.stale) == ("payment", "loaded", 2, 0), (
        report.error
    )
    rows = deployment.rows("payment")
    sent = {1: image(1, "6"), 2: image(2, "6", note=None, details=None, Amount="-0.01")}
    for id_, source in sent.items():
        row = rows["6", str(id_)]
        assert (row.version, row.deleted, row.source, row.flags) == (9 + id_, False, "shop", frozenset())
        for column in COLUMNS:
            expected = canonical(column.type, source[column.name])
            assert canonical(column.type, row.row[column.name]) == expected, column.name


def test_what_redshift_cannot_hold_is_flagged(deployment: Deployment) -> None:
    deployment.stage(event("payment", "6", 1, 10, Amount="NaN", note="x" * 81, day="infinity"))
    deployment.loader().load_due()
    row = deployment.rows("payment")["6", "1"]
    assert row.flags == {"Amount", "note", "day"}
    assert (row.row["Amount"], row.row["note"], row.row["day"]) == (None, "x" * 80, None)


def test_a_stale_row_changes_nothing_and_a_tombstone_stays(deployment: Deployment) -> None:
    """Mutant: the stale filter is removed (DELETE of stale rows before MERGE)."""
    deployment.stage(event("payment", "6", 1, 20, note="new"), event("payment", "6", 2, 21, deleted=True))
    deployment.loader().load_due()
    deployment.stage(event("payment", "6", 1, 19, note="old"), event("payment", "6", 2, 18, note="late"))
    [report] = deployment.loader().load_due()
    assert (report.applied, report.stale) == (0, 2)
    rows = deployment.rows("payment")
    assert (rows["6", "1"].version, rows["6", "1"].row["note"]) == (20, "new")
    assert (rows["6", "2"].version, rows["6", "2"].deleted) == (21, True)
    live = deployment.query(
        f'SELECT _merchant, id, amount, _version, _source FROM "{deployment.schema}".payment_live'
    )
    assert [[str(value) for value in row] for row in live] == [["6", "1", "12.30", "20", "shop"]]


def test_a_deleted_row_that_is_inserted_again_lives(deployment: Deployment) -> None:
    deployment.stage(event("payment", "6", 1, 20, deleted=True))
    deployment.loader().load_due()
    deployment.stage(event("payment", "6", 1, 21))
    deployment.loader().load_due()
    assert not deployment.rows("payment")["6", "1"].deleted


def test_repeated_keys_and_versions_in_one_batch_are_folded(deployment: Deployment) -> None:
    """Mutant: the stage is merged as copied, without keeping the newest row of each key."""
    for version in (12, 10, 11, 12):
        deployment.stage(event("payment", "6", 1, version, note=f"v{version}"))
    [report] = deployment.loader().load_due()
    assert (report.batches, report.applied, report.stale) == (1, 1, 0)
    assert deployment.rows("payment")["6", "1"].row["note"] == "v12"


class State(NamedTuple):
    """What a model knows of a sink key."""

    version: int
    deleted: bool
    note: str


def test_shuffled_doubled_turns_and_concurrent_loaders_end_as_the_model(deployment: Deployment) -> None:
    """Mutants: the stale filter is removed; the stage is merged as copied."""
    rng = random.Random(7)
    model: dict[tuple[str, str, str], State] = {}
    turns = []
    for number in range(60):
        events = []
        for place in range(20):
            version = number * 20 + place + 1
            type_, merchant, id_, deleted = (
                rng.choice(TYPES),
                rng.choice("123"),
                rng.randint(1, 25),
                rng.random() < 0.2,
            )
            events.append(event(type_, merchant, id_, version, deleted=deleted, note=f"v{version}"))
            model[type_, merchant, str(id_)] = State(version, deleted, f"v{version}")
        turns.append(events)
    turns += rng.sample(turns, 10)
    rng.shuffle(turns)
    done = threading.Event()

    def load_until_done() -> None:
        while not done.is_set():
            deployment.loader().load_due()
        deployment.loader().load_due()

    with ThreadPoolExecutor(3) as pool:
        loaders = [pool.submit(load_until_done) for _ in range(3)]
        for events in turns:
            deployment.stage(*events)
        done.set()
        for loader in loaders:
            loader.result(timeout=120)
    deployment.loader().load_due()
    found = {
        (type_, *key): State(row.version, row.deleted, row.row["note"])
        for type_ in TYPES
        for key, row in deployment.rows(type_).items()
    }
    assert found == model
    _assert_each_load_once_in_its_ledger(deployment)


def _assert_each_load_once_in_its_ledger(deployment: Deployment) -> None:
    with deployment.database.transaction() as connection:
        loads = connection.execute("SELECT type, batch_id FROM loads WHERE status = 'loaded'").fetchall()
        assert connection.execute("SELECT count(*) FROM parts WHERE batch_id IS NULL").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM loads WHERE status <> 'loaded'").fetchone() == (0,)
    entries = [(type_, batch) for type_ in TYPES for batch in deployment.ledger(type_)]
    assert sorted(entries) == sorted(loads)


@pytest.mark.parametrize(
    "fault", [faults.DROP_COMMIT_ANSWER, faults.DROP_BEFORE_COMMIT, faults.KILL_DURING_COPY]
)
def test_a_connection_lost_on_the_way_loads_once(
    deployment: Deployment, variables: Mapping[str, str], fault: str
) -> None:
    """Mutant: the ledger is skipped: a dropped COMMIT answer enters the batch twice."""
    state = Path(variables["SSL_CERT_FILE"]).parent
    faults.arm(state, fault)
    deployment.stage(event("payment", "6", 1, 10))
    [report] = deployment.loader().load_due()
    assert (report.status, report.applied, report.stale) == ("loaded", 1, 0), report.error
    assert faults.armed(state, fault) == 0
    _assert_each_load_once_in_its_ledger(deployment)
    assert set(deployment.rows("payment")) == {("6", "1")}


PIPELINE = "from pipeline.cli import main; main()"
STAGE = "from tests.integration.warehouse_deployment import stage_one; stage_one()"


def _run_to_its_death(deployment: Deployment, code: str, failpoint: str, *arguments: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=deployment.process_environment(failpoint),
        cwd=REPO,
        timeout=60,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr.decode()


@pytest.mark.parametrize("failpoint", ["load.frozen", "load.copied", "load.merged", "load.committed"])
def test_a_loader_killed_anywhere_loads_once(deployment: Deployment, failpoint: str) -> None:
    """Mutant: the ledger is skipped: the batch of load.committed is entered twice."""
    deployment.stage(event("payment", "6", 1, 10))
    _run_to_its_death(deployment, PIPELINE, f"{failpoint}:1", "warehouse", "load")
    deployment.stage(event("payment", "6", 2, 11))

    def loaded() -> bool:
        # The dead loader's session may hold its locks for a moment longer.
        deployment.loader().load_due()
        return len(deployment.ledger("payment")) == 2

    assert wait_until(loaded, 30)
    _assert_each_load_once_in_its_ledger(deployment)
    assert set(deployment.rows("payment")) == {("6", "1"), ("6", "2")}


@pytest.mark.parametrize(("failpoint", "waiting"), [("warehouse.uploaded", 0), ("warehouse.staged", 1)])
def test_a_worker_killed_while_staging_leaves_whole_parts_or_none(
    deployment: Deployment, failpoint: str, waiting: int
) -> None:
    """The lanes were not acknowledged, so the turn comes again; what it staged twice is loaded once."""
    _run_to_its_death(deployment, STAGE, f"{failpoint}:1")
    assert sum(state.waiting_parts for state in parts.load_states(deployment.database)) == waiting
    deployment.stage(event("payment", "6", 1, 10))
    [report] = deployment.loader().load_due()
    assert (report.applied, report.stale) == (1, 0)
    assert set(deployment.rows("payment")) == {("6", "1")}


def test_a_failing_load_stops_its_type_only_and_says_why(deployment: Deployment) -> None:
    schema = deployment.schema
    with deployment.warehouse() as warehouse:
        warehouse.run(f'DROP TABLE "{schema}".payout CASCADE')
    ensure_tables(deployment.settings, _narrow_payouts())
    deployment.stage(event("payout", "6", 1, 10, note="confidential"), event("payment", "6", 1, 11))
    reports = {report.type: report for report in deployment.loader().load_due()}
    assert (reports["payment"].status, reports["payout"].status) == ("loaded", "failed")
    deployment.stage(event("payout", "6", 2, 12, note="x"), event("payment", "6", 2, 13))
    reports = {report.type: report for report in deployment.loader().load_due()}
    assert (reports["payment"].status, reports["payout"].status) == ("loaded", "failed")
    [state] = parts.load_states(deployment.database)
    assert (state.type, state.status, state.waiting_parts, state.attempts) == ("payout", "failed", 1, 1)
    assert 'column "note": String length exceeds DDL length (code 1204)' in state.error
    assert "line 1" in state.error
    assert "confidential" not in state.error
    assert parts.freshness(deployment.database) > 0

    with deployment.warehouse() as warehouse:
        warehouse.run(f'DROP TABLE "{schema}".payout CASCADE')
    ensure_tables(deployment.settings, SHAPE.values())
    [report] = deployment.loader().load_now(["payout"])
    assert (report.status, report.batches, report.applied) == ("loaded", 2, 2)
    assert parts.load_states(deployment.database) == []
    assert parts.freshness(deployment.database) == 0
    _assert_each_load_once_in_its_ledger(deployment)


def _narrow_payouts() -> list[Table]:
    """Payouts whose note holds two characters, against what is captured."""
    narrow = [replace(c, type="character varying(2)") if c.name == "note" else c for c in COLUMNS]
    return [replace(SHAPE["payout"], columns=tuple(narrow))]


def test_a_load_under_way_elsewhere_is_left_alone(deployment: Deployment, control_url: str) -> None:
    deployment.stage(event("payment", "6", 1, 10), event("refund", "6", 1, 11))
    with flights.single_flight(ControlDatabase(control_url), "load payment") as alone:
        assert alone
        reports = {report.type: report.status for report in deployment.loader().load_due()}
    assert reports == {"payment": "busy", "refund": "loaded"}
    assert [report.status for report in deployment.loader().load_due()] == ["loaded"]


def test_two_attempts_at_one_batch_enter_it_once(deployment: Deployment) -> None:
    """When the control database's lock is lost, Redshift's is left. Mutants: no LOCK; the ledger is skipped."""
    deployment.stage(event("payment", "6", 1, 10))
    batch = parts.freeze(deployment.database, "payment", Due(0.0, 1))
    assert batch is not None
    manifest = f"loads/{deployment.schema}/payment/both.manifest"
    deployment.bucket.put({manifest: transaction.manifest(deployment.bucket, batch)})
    together = threading.Barrier(4)

    def attempt() -> Entry:
        together.wait(30)
        return transaction.load(
            deployment.target, sink_table(SHAPE["payment"]), batch, deployment.bucket.url(manifest)
        )

    with ThreadPoolExecutor(4) as pool:
        entries = [future.result(60) for future in [pool.submit(attempt) for _ in range(4)]]
    assert entries == [Entry(1, 0)] * 4
    assert deployment.ledger("payment") == [batch.id]


def test_redshift_away_leaves_the_batch_for_later(deployment: Deployment) -> None:
    deployment.stage(event("payment", "6", 1, 10))
    away = {**deployment.environ, "REDSHIFT_URL": "redshift://awsuser:hidden@localhost:1/warehouse"}
    [report] = Loader(settings.load(away, deployment.directory), deployment.bucket).load_due()
    assert report.status == "unavailable"
    assert "hidden" not in report.error
    [state] = parts.load_states(deployment.database)
    assert (state.status, state.attempts) == ("frozen", 5)
    [report] = deployment.loader().load_due()
    assert (report.status, report.applied) == ("loaded", 1)


def test_objects_go_only_after_their_load(deployment: Deployment) -> None:
    deployment.stage(event("payment", "6", 1, 10))
    deployment.loader().load_due()
    deployment.stage(event("payment", "6", 1, 11))
    assert deployment.loader().expire() == 0
    assert deployment.loader().expire(grace=0) == 1
    [report] = deployment.loader().load_due()
    assert (report.status, report.applied) == ("loaded", 1)


def test_tables_are_made_once_and_compared(deployment: Deployment) -> None:
    assert len(deployment.made) == 9
    assert ensure_tables(deployment.settings, SHAPE.values()) == []
    assert check_tables(deployment.settings, SHAPE.values()) == []

    other = [replace(c, type="numeric(18,4)") if c.name == "Amount" else c for c in COLUMNS]
    changed = [replace(SHAPE["payment"], columns=(*other, Column("extra", "text")))]
    found = check_tables(deployment.settings, changed)
    assert found == [
        "payment has no column extra",
        "payment.amount is NUMERIC(18,2), must be NUMERIC(18,4)",
    ]
    with pytest.raises(PermanentError, match=r"NUMERIC\(18,4\)"):
        ensure_tables(deployment.settings, changed)
    missing = [replace(SHAPE["payment"], type="absent")]
    assert "absent is missing, run: pipeline migrate" in check_tables(deployment.settings, missing)


def test_parts_of_other_columns_are_not_loaded(deployment: Deployment) -> None:
    """Mutant: no comparison of shapes before COPY."""
    deployment.stage(event("payment", "6", 1, 10))
    other = [replace(c, type="numeric(18,4)") if c.name == "Amount" else c for c in COLUMNS]
    tables.store(deployment.database, "shop", [replace(SHAPE["payment"], columns=tuple(other))])
    [report] = deployment.loader().load_due()
    assert report.status == "failed"
    assert "shape" in report.error


def test_reading_back_goes_page_by_page(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty key is read as well. Mutant: a page begins behind the last row's merchant instead of behind its key."""
    monkeypatch.setattr("pipeline.warehouse.reader._PAGE", 2)
    keys = [(merchant, id_) for merchant in ("1", "2", "3") for id_ in range(1, 6)]
    empty = msgspec.structs.replace(event("payment", "1", 9, 10), key={"id": ""})
    deployment.stage(empty, *(event("payment", merchant, id_, 10) for merchant, id_ in keys))
    deployment.loader().load_due()
    assert set(deployment.rows("payment")) == {("1", ""), *((merchant, str(id_)) for merchant, id_ in keys)}
    of_one = [row.key for row in scan(deployment.settings, deployment.database, "payment", "2")]
    assert of_one == ["1", "2", "3", "4", "5"]


def test_the_command_line_shows_and_retries(deployment: Deployment) -> None:
    deployment.stage(event("payment", "6", 1, 10))
    shown = _pipeline(deployment, "warehouse", "loads", "--json")
    assert '"type":"payment"' in shown
    assert "payment" in _pipeline(deployment, "warehouse", "load", "--reason", "a test")
    assert "everything is loaded" in _pipeline(deployment, "warehouse", "loads")
    assert "3 types, all as they must be" in _pipeline(deployment, "warehouse", "tables")
    with deployment.database.transaction() as connection:
        assert connection.execute("SELECT verb, reason FROM actions").fetchall() == [
            ("warehouse load", "a test")
        ]


def _pipeline(deployment: Deployment, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", PIPELINE, *arguments],
        env=deployment.process_environment(""),
        cwd=REPO,
        timeout=60,
        capture_output=True,
        check=False,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
