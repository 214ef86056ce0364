"""When a consumer is told to sweep, by whom, how often, and what is left behind."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from pipeline import settings as configuration
from pipeline.consumer import Rejection, SinkUnavailableError, SweepOrder
from pipeline.control import rejected, sweeps
from pipeline.control.database import ControlDatabase, migrate
from pipeline.errors import TransientError
from pipeline.settings import Settings
from pipeline.sweeping import Report, Sweeping, sweepers
from tests.fakes import sweeps as fake
from tests.fakes.sweeps import pass_everywhere, passages, sweep_of
from tests.fakes.turns import event, row

pytestmark = pytest.mark.integration

TOML = """
[deployment]
name = "payments"
datastream = { topic = "datastream", partitions = 2 }
[sources.gateway0.tables."public.payments"]
merchant = { column = "merchant_id" }
type = "payment"
[consumers.all]
handler = "tests.fakes.sweeps:handle"
snapshot = true
[consumers.changes]
handler = "tests.fakes.sweeps:handle"
[consumers.events]
handler = "tests.fakes.sweeps:handle"
topic = "eventstream"
[consumers.other]
handler = "tests.fakes.recording:record"
"""
NOWHERE = {
    "GATEWAY0_DATABASE_URL": "postgresql://127.0.0.1:1/none",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "ELASTICSEARCH_URL": "http://127.0.0.1:1",
    "REDSHIFT_URL": "redshift://127.0.0.1:1/none",
    "S3_BUCKET": "none",
}


@pytest.fixture
def settings(control_url: str, tmp_path: Path) -> Settings:
    (tmp_path / "pipeline.toml").write_text(TOML)
    return configuration.load({**NOWHERE, "CONTROL_DATABASE_URL": control_url}, tmp_path)


@pytest.fixture
def database(control_url: str) -> Iterator[ControlDatabase]:
    made = ControlDatabase(control_url)
    migrate(made)
    yield made
    made.close()


@pytest.fixture
def told() -> Iterator[list[SweepOrder]]:
    fake.told.clear()
    fake.answer[:] = [lambda _: 7]
    yield fake.told
    fake.told.clear()


def runs(database: ControlDatabase) -> list[tuple[str, str, int]]:
    with database.transaction() as connection:
        return connection.execute("SELECT consumer, sweep, rows FROM sweep_runs ORDER BY 1, 2").fetchall()


def set_aside(
    database: ControlDatabase,
    number: int,
    *,
    merchant: str = "6",
    type_: str = "payment",
    source: str = "gateway0",
) -> None:
    """The consumer ``all`` sets aside the event with this version, of the row with this key."""
    kept = event(number, row(number), merchant=merchant, type_=type_)
    kept = msgspec.structs.replace(kept, src=source)
    partition = sum(map(ord, f"{merchant}{type_}{source}"))
    refused = Rejection(merchant, partition, number, "no", b"{}", kept)
    rejected.store(database, "all", ("datastream", "datastream.snapshot"), [refused])


def test_a_sweep_is_run_once_it_is_passed_in_every_partition_of_every_topic(
    settings: Settings, database: ControlDatabase, told: list[SweepOrder]
) -> None:
    # Mutants: all partitions of one topic are enough; any partition is enough; a run is not recorded.
    sweep, sweeping = sweep_of(80, merchant="6", why="move"), Sweeping(settings)
    for place, passage in enumerate(passages(settings, "all", sweep)):
        assert sweeping.run_due() == []
        [*seen] = sweeps.waiting(database, "all", settings.topics_of("all"))
        assert [(one.passed, one.partitions) for one in seen] == ([(place, 4)] if place else [])
        sweeps.passed(database, "all", [passage])
        sweeps.passed(database, "all", [passage])
    assert sweeping.run_due() == [Report("all", sweep.id, "swept", 7)]
    order = SweepOrder("all", sweep.id, "gateway0", "public.payments", "payment", "6", 80, "move", (100, 101))
    assert told == [order]
    assert sweeping.run_due() == []
    assert sweeps.waiting(database, "all", settings.topics_of("all")) == []
    assert runs(database) == [("all", sweep.id, 7)]


def test_a_consumer_without_snapshots_waits_for_changes_alone(
    settings: Settings, database: ControlDatabase, told: list[SweepOrder]
) -> None:
    sweep = sweep_of(80)
    sweeps.passed(database, "changes", passages(settings, "changes", sweep))
    assert Sweeping(settings).run_due() == [Report("changes", sweep.id, "swept", 7)]


def test_a_consumer_without_snapshots_loses_no_row_that_only_a_snapshot_tells_of(
    settings: Settings, database: ControlDatabase, told: list[SweepOrder]
) -> None:
    # Mutant: every sweep is for every consumer; rows unchanged since the snapshot began would be removed.
    for why in ("snapshot", "move"):
        sweeps.passed(database, "changes", passages(settings, "changes", sweep_of(80, why=why)))
    assert Sweeping(settings).run_due() == [] == told
    assert sweeps.waiting(database, "changes", settings.topics_of("changes")) == []


def test_consumers_without_a_sweep_and_those_of_domain_events_are_never_asked(settings: Settings) -> None:
    assert [one.consumer for one in sweepers(settings)] == ["all", "changes"]


def test_what_was_set_aside_below_it_is_stale_afterwards(
    settings: Settings, database: ControlDatabase, told: list[SweepOrder]
) -> None:
    # Mutant: nothing becomes stale. And each of: source, type, merchant or version is not asked for.
    border = event(10, row(10)).version
    set_aside(database, 9)
    set_aside(database, 10)
    set_aside(database, 8, merchant="7")
    set_aside(database, 7, type_="refund")
    set_aside(database, 6, source="gateway1")
    sweeps.passed(database, "all", passages(settings, "all", sweep_of(border, merchant="6")))
    Sweeping(settings).run_due()
    assert sorted(one.offset for one in rejected.listed(database, "all")) == [6, 7, 8, 10]
    assert rejected.counts(database) == {"all": 4}
    every = rejected.listed(database, "all", stale=True)
    assert sorted((one.offset, one.stale) for one in every) == [
        (6, False), (7, False), (8, False), (9, True), (10, False),
    ]  # fmt: skip


def test_a_snapshot_spares_the_rows_that_were_set_aside_from_it_and_a_truncate_none(
    settings: Settings, database: ControlDatabase, told: list[SweepOrder]
) -> None:
    # Mutants: nothing is spared; older ones are spared, too; stale ones are spared, too.
    border = event(10, row(10)).version
    for number in (9, 10, 11):
        set_aside(database, number)
    set_aside(database, 12, type_="refund")
    set_aside(database, 13, source="gateway1")
    for why in ("truncate", "snapshot", "move"):
        sweep = sweep_of(border, why=why, name=why)
        sweeps.passed(database, "all", passages(settings, "all", sweep))
    Sweeping(settings).run_due()
    assert {order.why: order.spared for order in told} == {
        "truncate": frozenset(),
        "snapshot": {("6", "10"), ("6", "11")},
        "move": {("6", "10"), ("6", "11")},
    }
    Sweeping(settings).run_due()
    late = sweep_of(event(20, row(20)).version, name="late")
    after = sweep_of(event(11, row(11)).version, why="snapshot", name="after")
    for sweep in (late, after):
        sweeps.passed(database, "all", passages(settings, "all", sweep))
        Sweeping(settings).run_due()
    assert told[-1].spared == frozenset()


@pytest.mark.parametrize(
    "error", [SinkUnavailableError("away"), TransientError("not yet"), ValueError("row 1")]
)
def test_what_cannot_be_done_now_is_tried_again_and_blames_nobody(
    settings: Settings, database: ControlDatabase, told: list[SweepOrder], error: Exception
) -> None:
    # Mutants: an error ends the task; a failed sweep is recorded; a sink that lacks one index gets no sweep at all.
    first, second, refund = sweep_of(80), sweep_of(90, name="1:11"), sweep_of(91, type_="refund")
    for sweep in (first, second, refund):
        sweeps.passed(database, "all", passages(settings, "all", sweep))
    sweeps.passed(database, "changes", passages(settings, "changes", first))

    def fail(order: SweepOrder) -> int:
        if (order.consumer, order.id) == ("all", first.id):
            raise error
        return 1

    fake.answer.append(fail)
    reports = {(one.consumer, one.sweep): one for one in Sweeping(settings).run_due()}
    status = {SinkUnavailableError: "unavailable", TransientError: "waits", ValueError: "failed"}[type(error)]
    assert reports["all", first.id].status == status
    assert "row" not in reports["all", first.id].error
    assert reports["changes", first.id].status == "swept"
    # A sink that does not accept is not asked for the type's next sweep; another type's index may be there.
    assert reports["all", refund.id].status == "swept"
    assert (("all", second.id) in reports) == (status != "unavailable")
    fake.answer.pop()
    Sweeping(settings).run_due()
    assert len(runs(database)) == 4


def test_of_two_runners_one_leaves_the_consumer_alone(
    settings: Settings, database: ControlDatabase, told: list[SweepOrder]
) -> None:
    # Mutant: no lock.
    sweeps.passed(database, "all", passages(settings, "all", sweep_of(80)))
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: SweepOrder) -> int:
        begun.set()
        assert go_on.wait(30)
        return 1

    fake.answer.append(wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(Sweeping(settings).run_due)
        try:
            assert begun.wait(30)
            assert Sweeping(settings).run_due() == []
        finally:
            go_on.set()
        assert [one.status for one in first.result(30)] == ["swept"]
    assert len(told) == 1


def test_old_sweeps_are_forgotten_when_they_are_run_or_can_never_be(
    settings: Settings, database: ControlDatabase, told: list[SweepOrder]
) -> None:
    # Mutants: nothing is forgotten; what is old is forgotten though it is due.
    done, partly, due, young = (sweep_of(80, name=name) for name in ("done", "partly", "due", "young"))
    sweeps.passed(database, "all", passages(settings, "all", done))
    Sweeping(settings).run_due()
    sweeps.passed(database, "all", passages(settings, "all", due))
    sweeps.passed(database, "all", passages(settings, "all", partly)[1:])
    sweeps.passed(database, "other", passages(settings, "other", partly))
    with database.transaction() as connection:
        connection.execute("UPDATE sweeps SET seen_at = seen_at - interval '337 hours'")
    sweeps.passed(database, "all", passages(settings, "all", young)[1:])

    def away(_: SweepOrder) -> int:
        raise SinkUnavailableError("away")

    fake.answer.append(away)
    Sweeping(settings).run_due()
    with database.transaction() as connection:
        left = connection.execute("SELECT id FROM sweeps ORDER BY id").fetchall()
    assert left == [(due.id,), (young.id,)]
    assert runs(database) == []


def test_an_order_knows_its_place_and_what_it_removes(settings: Settings, database: ControlDatabase) -> None:
    # Mutants: equal versions go, too; the merchant is not looked at.
    order = pass_everywhere(database, settings, "all", sweep_of(80, merchant="6"))
    assert {order.place(merchant) for merchant in ("6", "7", "8", "9")} == {(0, 100), (1, 101)}
    assert order.removes("6", "1", 79)
    assert not order.removes("6", "1", 80)
    assert not order.removes("7", "1", 79)
