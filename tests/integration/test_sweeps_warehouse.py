"""A sweep in Redshift: after what was staged before it, in one transaction, once."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from devstack.process import wait_until
from pipeline import settings as configuration
from pipeline.consumer import Event, SinkUnavailableError, SweepOrder
from pipeline.control import sweeps, tables
from pipeline.domain.table import Column
from pipeline.errors import TransientError
from pipeline.warehouse.redshift import Session, WarehouseUnavailableError
from pipeline.warehouse.sweep import WarehouseSweep, ledger_id, sweep
from tests.conftest import REPO
from tests.fakes.sweeps import pass_everywhere, sweep_of
from tests.integration.warehouse_deployment import COLUMNS, SHAPE, Deployment, event

pytestmark = pytest.mark.integration

RUN = "from tasks.sweeps import sweep; sweep()"


@pytest.fixture
def deployment(
    variables: Mapping[str, str], tmp_path: Path, control_url: str, warehouse_schema: str, s3_client: object
) -> Iterator[Deployment]:
    """Tables made, nothing staged."""
    made = Deployment(variables, tmp_path, control_url, warehouse_schema)
    yield made
    made.close()


def load(deployment: Deployment, *events: Event) -> None:
    deployment.stage(*events)
    assert {report.status for report in deployment.loader().load_due()} == {"loaded"}


def passed(deployment: Deployment, version: int, name: str = "1:10") -> SweepOrder:
    """The warehouse has passed the truncation of shop's payments at this version."""
    told = sweep_of(version, src="shop", name=name)
    return pass_everywhere(deployment.database, deployment.settings, "warehouse", told)


def living(deployment: Deployment, type_: str = "payment") -> set[tuple[str, str]]:
    return {key for key, row in deployment.rows(type_).items() if not row.deleted}


def test_exactly_what_is_older_of_its_source_is_removed(deployment: Deployment) -> None:
    """Mutants: the source, the version, or `_deleted` is not asked for; equal versions go, too; none are spared."""
    other = msgspec.structs.replace(event("payment", "6", 5, 2), src="shop2")
    spaced = msgspec.structs.replace(event("payment", "6", 8, 3), key={"id": "8  "})
    load(
        deployment,
        event("payment", "6", 1, 1, note="kept"), event("payment", "6", 2, 9), event("payment", "6", 3, 10),
        event("payment", "6", 4, 11), other, event("payment", "6", 6, 4, deleted=True), event("payment", "6", 7, 5),
        spaced, event("payment", "7", 1, 6), event("payment", "7", 7, 7), event("refund", "6", 1, 8),
    )  # fmt: skip
    before = deployment.rows("payment")
    spared = frozenset({("6", "7"), ("6", "8  "), ("6", "x" * 2000), *(("9", str(n)) for n in range(2100))})
    order = replace(passed(deployment, 10), spared=spared)
    assert WarehouseSweep(deployment.settings, deployment.database)(order) == 4
    after = deployment.rows("payment")
    gone = {("6", "1"), ("6", "2"), ("7", "1"), ("7", "7")}
    assert {key for key in after if after[key] != before[key]} == gone
    assert all(after[key] == replace(before[key], deleted=True, version=10) for key in gone)
    assert living(deployment, "refund") == {("6", "1")}
    table = f'"{deployment.schema}".payment'
    [[written]] = deployment.query(f"SELECT MAX(_loaded_at) FROM {table} WHERE NOT _deleted")
    [[removed]] = deployment.query(f"SELECT MIN(_loaded_at) FROM {table} WHERE _deleted AND _version = 10")
    assert removed > written


def test_of_one_merchant_only(deployment: Deployment) -> None:
    """Mutant: the merchant is not asked for."""
    load(deployment, event("payment", "6", 1, 1), event("payment", "7", 1, 2))
    assert sweep(deployment.target, replace(passed(deployment, 10), merchant="7")) == 1
    assert living(deployment) == {("6", "1")}


def test_it_waits_for_parts_that_came_before_and_for_no_others(deployment: Deployment) -> None:
    """Mutants: it does not wait: what is loaded later is not swept; it waits for parts that came later, too."""
    deployment.stage(event("payment", "6", 1, 1), event("refund", "6", 1, 2))
    order = passed(deployment, 10)
    deployment.stage(event("payment", "6", 2, 11))
    run = WarehouseSweep(deployment.settings, deployment.database)
    with pytest.raises(TransientError, match="1 parts of payment that came before it") as waits:
        run(order)
    assert not isinstance(waits.value, SinkUnavailableError)
    assert deployment.rows("payment") == {}
    deployment.loader().load_due()
    deployment.stage(event("payment", "6", 3, 12))
    assert run(order) == 1
    assert living(deployment) == {("6", "2")}


def test_a_load_that_failed_holds_it_back(deployment: Deployment) -> None:
    """Mutant: a frozen batch counts as loaded."""
    deployment.stage(event("payment", "6", 1, 1))
    order = passed(deployment, 10)
    other = replace(SHAPE["payment"], columns=(*COLUMNS, Column("extra", "text")))
    tables.store(deployment.database, "shop", [other])
    assert [report.status for report in deployment.loader().load_due()] == ["failed"]
    tables.store(deployment.database, "shop", list(SHAPE.values()))
    run = WarehouseSweep(deployment.settings, deployment.database)
    with pytest.raises(TransientError):
        run(order)
    assert [report.status for report in deployment.loader().load_now()] == ["loaded"]
    assert run(order) == 1


def test_what_comes_again_after_it_is_stale(deployment: Deployment) -> None:
    """What is older and staged later was staged before as well, so its row is in the target: no phantom can come."""
    load(deployment, event("payment", "6", 1, 1), event("payment", "6", 2, 2, deleted=True))
    assert sweep(deployment.target, passed(deployment, 10)) == 1
    deployment.stage(event("payment", "6", 1, 1), event("payment", "6", 2, 1), event("payment", "6", 1, 9))
    [report] = deployment.loader().load_due()
    assert (report.applied, report.stale) == (0, 2)
    load(deployment, event("payment", "6", 1, 11))
    assert living(deployment) == {("6", "1")}


def test_run_twice_it_enters_the_ledger_once_and_says_the_same(deployment: Deployment) -> None:
    """Mutant: the ledger is not read."""
    load(deployment, event("payment", "6", 1, 1))
    order = passed(deployment, 10)
    assert [sweep(deployment.target, order), sweep(deployment.target, order)] == [1, 1]
    assert deployment.ledger("payment").count(ledger_id(order)) == 1


@pytest.mark.parametrize("answer_only", [True, False])
def test_a_connection_lost_at_commit_sweeps_once(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, answer_only: bool
) -> None:
    """Mutant: the ledger is not read: after a lost answer the count is 0, and there are two rows in the ledger."""
    load(deployment, event("payment", "6", 1, 1))
    order = passed(deployment, 10)
    run = WarehouseSweep(deployment.settings, deployment.database)
    commit = Session.commit
    cut: list[Session] = []

    def lose(warehouse: Session) -> None:
        cut.append(warehouse)
        if len(cut) != 2 or answer_only:  # the first is of the session's own setting
            commit(warehouse)
        if len(cut) == 2:
            raise WarehouseUnavailableError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "commit", lose)
        with pytest.raises(SinkUnavailableError):
            run(order)
    assert run(order) == 1
    assert living(deployment) == set()
    assert deployment.ledger("payment").count(ledger_id(order)) == 1


@pytest.mark.parametrize("failpoint", ["sweep.updated", "sweep.committed", "sweep.carried_out"])
def test_a_warehouse_sweep_killed_anywhere_is_run_again(deployment: Deployment, failpoint: str) -> None:
    """Mutant: the ledger is not read: after sweep.committed the record says that nothing was removed."""
    load(deployment, event("payment", "6", 1, 1))
    order = passed(deployment, 10)
    died = _process(deployment, f"{failpoint}:1")
    assert died.returncode == -9, died.stderr.decode()
    topics = deployment.settings.topics_of("warehouse")

    def done() -> bool:
        # The dead one's sessions may hold their locks for a moment longer.
        again = _process(deployment, "")
        assert again.returncode == 0, again.stderr.decode()
        return sweeps.due(deployment.database, "warehouse", topics) == []

    assert wait_until(done, 60)
    assert living(deployment) == set()
    assert deployment.ledger("payment").count(ledger_id(order)) == 1
    with deployment.database.transaction() as connection:
        assert connection.execute("SELECT rows FROM sweep_runs").fetchall() == [(1,)]


def _process(deployment: Deployment, failpoint: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", RUN],
        env=deployment.process_environment(failpoint),
        cwd=REPO,
        timeout=60,
        capture_output=True,
        check=False,
    )


def test_sweeps_and_loads_at_once_take_turns(deployment: Deployment) -> None:
    """Mutant: the sweep does not lock the ledger first: it collides with loads, or removes what they just wrote."""
    load(deployment, *(event("payment", "6", id_, id_) for id_ in range(1, 41)))
    order = passed(deployment, 1000)
    together = threading.Barrier(5)

    def sweeps_now() -> int:
        together.wait(30)
        return sweep(deployment.target, order)

    def loads_now() -> None:
        together.wait(30)
        for id_ in range(1, 41, 4):
            # Half of it comes again from before the sweep, half is newer.
            deployment.stage(event("payment", "6", id_, id_), event("payment", "6", id_ + 1, 1000 + id_))
            deployment.loader().load_due()
        deployment.database.close()

    with ThreadPoolExecutor(5) as pool:
        swept = [pool.submit(sweeps_now) for _ in range(3)]
        loaded = [pool.submit(loads_now) for _ in range(2)]
        counts = {one.result(120) for one in swept}
        for each in loaded:
            each.result(120)
    deployment.loader().load_due()
    assert len(counts) == 1
    assert living(deployment) == {("6", str(id_)) for id_ in range(2, 42, 4)}
    assert deployment.ledger("payment").count(ledger_id(order)) == 1


def test_redshift_away_is_tried_again(deployment: Deployment) -> None:
    load(deployment, event("payment", "6", 1, 1))
    passed(deployment, 10)
    away = {**deployment.environ, "REDSHIFT_URL": "redshift://awsuser:hidden@localhost:1/warehouse"}
    settings = configuration.load(away, deployment.directory)
    order = sweeps.due(deployment.database, "warehouse", settings.topics_of("warehouse"))[0]
    with pytest.raises(SinkUnavailableError) as told:
        WarehouseSweep(settings, deployment.database)(order)
    assert "hidden" not in str(told.value)
    assert WarehouseSweep(deployment.settings, deployment.database)(order) == 1
