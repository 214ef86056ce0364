"""A sweep in the index: what is older of its source becomes tombstones, and nothing else is touched."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from devstack.process import wait_until
from pipeline.consumer import Event, SinkUnavailableError, SweepOrder
from pipeline.control import sweeps, tables
from pipeline.control.database import ControlDatabase, migrate
from pipeline.search import reader
from pipeline.search.bulk import post
from pipeline.search.reader import Document
from pipeline.search.scope import SearchScope
from pipeline.search.sweep import SearchSweep
from tests.conftest import REPO
from tests.fakes.search import TABLES, SearchPlace, environment_for
from tests.fakes.sweeps import pass_everywhere, sweep_of
from tests.fakes.turns import event, lane, row, turn, version

pytestmark = pytest.mark.integration


@pytest.fixture
def place(elasticsearch_url: str, index_prefix: str, tmp_path: Path) -> Iterator[SearchPlace]:
    made = SearchPlace(elasticsearch_url, index_prefix, tmp_path)
    yield made
    made.close()


@pytest.fixture
def database(control_url: str) -> Iterator[ControlDatabase]:
    made = ControlDatabase(control_url)
    migrate(made)
    tables.store(made, "gateway0", list(TABLES))
    yield made
    made.close()


RUN = "from tasks.sweeps import sweep; sweep()"


def order(number: int, merchant: str | None = None, *spared: tuple[str, str]) -> SweepOrder:
    return SweepOrder(
        "search", "a", "gateway0", "public.payments", "payment", merchant, version(number), "snapshot",
        range(1000, 1012), frozenset(spared),
    )  # fmt: skip


def of(source: str, one: Event) -> Event:
    return msgspec.structs.replace(one, src=source)


def everything(place: SearchPlace, type_: str = "payment") -> dict[tuple[str, str], Document]:
    return {(one.merchant, one.key): one for one in reader.scan(place.client, place.deployment, type_)}


def living(place: SearchPlace, type_: str = "payment") -> set[tuple[str, str]]:
    return {key for key, one in everything(place, type_).items() if not one.deleted}


def test_exactly_what_is_older_of_its_source_is_removed(
    place: SearchPlace, database: ControlDatabase
) -> None:
    # Mutants: the source is not asked for; tombstones are written again; spared keys are not left out. That a newer
    # document is not sent at all is an economy: Elasticsearch would refuse it.
    place.write(
        turn(
            lane(
                event(1, row(1)),
                event(9, row(2)),
                event(10, row(3)),
                event(11, row(4)),
                of("gateway1", event(2, row(5))),
                event(3, row(6), op="d"),
                event(4, row(7)),
                event(5, row(8), type_="refund"),
            ),
            lane(event(6, row(1), merchant="7"), event(7, row(7), merchant="7")),
        )
    )
    before = everything(place)
    removed = SearchSweep(place.client, place.deployment, database)(order(10, None, ("6", "7")))
    after = everything(place)
    gone = {("6", "1"), ("6", "2"), ("7", "1"), ("7", "7")}
    assert removed == 4
    assert {key for key in after if after[key] != before[key]} == gone
    assert all(after[key].deleted and after[key].version == version(10) for key in gone)
    assert living(place, "refund") == {("6", "8")}


def test_of_one_merchant_only(place: SearchPlace, database: ControlDatabase) -> None:
    # Mutant: the merchant is neither asked for nor looked at.
    place.write(turn(lane(event(1, row(1))), lane(event(2, row(1), merchant="7"))))
    assert SearchSweep(place.client, place.deployment, database)(order(10, "7")) == 1
    assert living(place) == {("6", "1")}


def test_a_swept_row_is_a_tombstone_like_any_other(place: SearchPlace, database: ControlDatabase) -> None:
    # Mutants: the tombstone keeps the row; the place of the sweep is another partition's.
    sweep = order(10)
    partition, offset = sweep.place("6")
    deleted = lane(event(10, row(2), op="d"), first_offset=offset)
    deleted.partition = partition
    place.write(turn(lane(event(1, row(1)))))
    place.write(turn(deleted))
    SearchSweep(place.client, place.deployment, database)(sweep)
    assert everything(place)["6", "1"] == Document(
        "6", "1", version(10), True, {"id": 1}, partition, offset, "gateway0"
    )
    wanted = [{"_id": f"6:payment:{number}", "routing": "6"} for number in (1, 2)]
    found = place.client.mget(index=place.index(), docs=wanted)["docs"]
    swept, told = (document["_source"] for document in found)
    assert swept == {**told, "id": 1, "cdc": {**told["cdc"], "key": "1"}}


def test_nothing_older_revives_it_and_what_is_newer_lives(
    place: SearchPlace, database: ControlDatabase
) -> None:
    place.write(turn(lane(event(1, row(1)), event(2, row(2)))))
    SearchSweep(place.client, place.deployment, database)(order(10))
    assert place.write(turn(lane(event(9, row(1)), event(11, row(2))))).stale == 1
    assert living(place) == {("6", "2")}


def test_what_nobody_can_see_yet_is_swept_and_the_end_is_seen_by_all(
    place: SearchPlace, database: ControlDatabase
) -> None:
    # Mutants: no refresh before the scan; none after the last bulk.
    settings = {"refresh_interval": "-1"}
    place.client.indices.put_settings(index=place.index(), settings=settings)
    lines = [event(number, row(number)) for number in range(1, 4)]
    place.writer._refresher.close()
    place.write(turn(lane(*lines)))
    assert SearchSweep(place.client, place.deployment, database)(order(10)) == 3
    assert SearchScope(place.client, place.deployment, "6").count("payment") == 0
    hits = place.client.search(index=place.index(), query={"term": {"cdc.deleted": True}}).body["hits"]
    assert hits["total"]["value"] == 3


def test_what_is_written_meanwhile_stays(
    place: SearchPlace, database: ControlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutant: tombstones without the external version.
    place.write(turn(lane(event(1, row(1)), event(2, row(2)))))

    def later(*arguments: object) -> object:
        place.write(turn(lane(event(11, row(1)))))
        return post(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("pipeline.search.sweep.post", later)
    assert SearchSweep(place.client, place.deployment, database)(order(10)) == 1
    assert living(place) == {("6", "1")}


@pytest.mark.parametrize("key", ["a:b", "a%3Ab", 'q"\\\n', "ü" * 400, "x" * 3000, "*", ""])
def test_hostile_keys_are_swept_like_any_other(
    place: SearchPlace, database: ControlDatabase, key: str
) -> None:
    tables.store(database, "gateway0", [replace(TABLES[0], key=("token",))])
    place.write(turn(lane(event(1, row(1, token=key), key={"token": key}))))
    [(merchant, encoded)] = everything(place)
    sweep = SearchSweep(place.client, place.deployment, database)
    assert sweep(order(10, None, (merchant, encoded))) == 0
    assert sweep(order(10)) == 1
    [one] = everything(place).values()
    assert (one.deleted, one.row, one.key) == (True, {"token": key}, encoded)


def test_a_type_that_is_no_longer_captured_is_swept_too(
    place: SearchPlace, database: ControlDatabase
) -> None:
    place.write(turn(lane(event(1, row(1)))))
    tables.store(database, "gateway0", [])
    assert SearchSweep(place.client, place.deployment, database)(order(10)) == 1
    assert everything(place)["6", "1"].row == {}


def test_a_sink_that_does_not_accept_is_swept_when_it_does(
    place: SearchPlace, database: ControlDatabase
) -> None:
    place.write(turn(lane(event(1, row(1)))))
    sweep = SearchSweep(place.client, place.deployment, database)
    place.block(True)
    with pytest.raises(SinkUnavailableError):
        sweep(order(10))
    place.block(False)
    assert sweep(order(10)) == 1
    assert sweep(order(10)) == 0


@pytest.mark.parametrize("failpoint", ["search.swept", "sweep.carried_out", "sweep.recorded"])
def test_a_sweep_killed_anywhere_is_run_again(
    place: SearchPlace, database: ControlDatabase, control_url: str, elasticsearch_url: str, failpoint: str
) -> None:
    # Mutant: the run is recorded before it is carried out.
    place.write(turn(lane(*(event(number, row(number)) for number in range(1, 2502)))))
    pass_everywhere(database, place.settings, "search", sweep_of(version(3000)))
    environ = environment_for(
        place.settings.path.parent,
        place.deployment,
        elasticsearch_url,
        CONTROL_DATABASE_URL=control_url,
        PIPELINE_CONFIG=str(place.settings.path),
        PIPELINE_FAILPOINTS=f"{failpoint}:1",
    )
    died = subprocess.run(
        [sys.executable, "-c", RUN], env=environ, cwd=REPO, timeout=60, capture_output=True, check=False
    )
    assert died.returncode == -9, died.stderr.decode()
    assert len(living(place)) == {"search.swept": 501}.get(failpoint, 0)
    again = subprocess.run(
        [sys.executable, "-c", RUN],
        env={**environ, "PIPELINE_FAILPOINTS": ""},
        cwd=REPO,
        timeout=60,
        capture_output=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr.decode()
    assert living(place) == set()
    assert sweeps.due(database, "search", place.settings.topics_of("search")) == []


def test_beat_hints_and_a_worker_sweeps(
    place: SearchPlace,
    database: ControlDatabase,
    control_url: str,
    elasticsearch_url: str,
    redis_url: str,
    tmp_path: Path,
) -> None:
    # Mutants: beat gives no hints; the task is not included.
    place.write(turn(lane(event(1, row(1)))))
    pass_everywhere(database, place.settings, "search", sweep_of(version(10)))
    environ = environment_for(
        tmp_path,
        place.deployment,
        elasticsearch_url,
        CONTROL_DATABASE_URL=control_url,
        REDIS_URL=redis_url,
        PIPELINE_CONFIG=str(place.settings.path),
    )
    celery = (sys.executable, "-m", "celery", "-A", "tasks.app")
    worker = [*celery, "worker", "-Q", "sweeps", "-P", "threads", "-n", f"w@{place.deployment}"]
    beat = [*celery, "beat", "-s", str(tmp_path / "schedule")]
    with (tmp_path / "log").open("wb") as log:
        processes = [
            subprocess.Popen(command, env={**os.environ, **environ}, cwd=REPO, stdout=log, stderr=log)
            for command in (worker, beat)
        ]
        try:
            assert wait_until(lambda: living(place) == set(), 60), (tmp_path / "log").read_text()
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
        with Redis.from_url(redis_url) as client:
            for key in client.scan_iter(match=f"{place.deployment}:*", count=1000):
                client.delete(key)
