"""What a snapshot ends with: a sweep everywhere behind its rows, so that what vanished in the source vanishes in the sinks."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pipeline.capture import rows
from pipeline.control import snapshots
from pipeline.control import tables as known
from pipeline.domain.event import decode
from pipeline.domain.sweep import decode_sweep
from pipeline.domain.version import EVENT, pack
from tests.integration.captured import NAME, Captured
from tests.integration.relaying import Stage, staged

pytestmark = pytest.mark.integration
PARTITIONS = 3
EVERYWHERE = {(topic, partition) for topic in ("", ".snapshot") for partition in range(PARTITIONS)}


@pytest.fixture
def stage(captured: Captured, kafka_bootstrap: str, kafka_topic: Callable[..., str]) -> Iterator[Stage]:
    captured.run(
        "create table t (id bigint primary key, merchant_id integer, v integer)",
        "insert into t select g, g % 5, 0 from generate_series(1, 60) g",
        "create table items (id bigint primary key, t_id bigint references t, note text)",
        "create index on items (t_id)",
        "insert into items select g, g % 30 + 1, 'x' from generate_series(1, 60) g",
    )
    captured.install_tables(t={}, items={"merchant": {"parent": "public.t", "on": "t_id"}})
    with staged(captured, kafka_bootstrap, kafka_topic(PARTITIONS), partitions=PARTITIONS) as made:
        yield made


def silently(captured: Captured, *statements: str) -> None:
    """Change rows behind the trigger's back."""
    with psycopg.connect(captured.source.admin_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        for statement in statements:
            connection.execute(statement.encode())


def test_the_sweep_of_a_table_stands_behind_its_rows_in_every_partition(stage: Stage) -> None:
    # Mutants: in the partitions of one topic alone; at the version of the last chunk; before the rows are through.
    stage.carry_out(snapshots.request(stage.database, NAME, table="public.t"))
    assert {place[:2] for place in stage.sweeps()} == EVERYWHERE
    (sweep,) = {sweep for _, _, sweep in stage.sweeps()}
    assert (sweep.src, sweep.table, sweep.type, sweep.merchant) == (NAME, "public.t", "t", None)
    assert sweep.version == pack(1, min(row.ev for row in stage.rows()), EVENT)
    newest: dict[int, bool] = {}
    for record in stage.records(".snapshot"):
        newest[record.partition] = record.key is None
    assert newest == dict.fromkeys(range(PARTITIONS), True)
    assert stage.records(".events") == []


def test_of_a_merchant_only_his_rows_and_only_his_sweep(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutants: the filter left out; chunks that end with the last row that is his, so that they read the rest of the table.
    monkeypatch.setattr(rows, "CHUNK_ROWS", 7)
    stage.captured.run("delete from t where merchant_id = 3 and id > 30")
    stage.carry_out(snapshots.request(stage.database, NAME, merchant="3"))
    table = stage.queue.connection.execute(
        "select 't', id from public.t where merchant_id = 3 union all"
        " select 'items', i.id from public.items i join public.t on t.id = t_id where merchant_id = 3"
    ).fetchall()
    assert Counter((row.type, row.key["id"]) for row in stage.rows()) == Counter(table)
    assert {row.merchant for row in stage.rows()} == {"3"}
    assert {(sweep.type, sweep.merchant) for _, _, sweep in stage.sweeps()} == {("t", "3"), ("items", "3")}


def test_a_merchant_that_moved_here_is_swept_where_he_was(stage: Stage) -> None:
    # Mutant: at the other source's own generation, its rows would keep the higher version.
    other = [table for table in stage.captured.tables if table.name == "public.t"]
    known.store(stage.database, "mall", other)
    request = snapshots.request(stage.database, NAME, table="public.t", merchant="3", replaces="mall")
    stage.carry_out(request)
    (own, there) = sorted({sweep for _, _, sweep in stage.sweeps()}, key=lambda sweep: sweep.why == "move")
    assert (own.src, own.why, there.src, there.why) == (NAME, "snapshot", "mall", "move")
    assert (own.version, own.merchant) == (there.version, there.merchant)
    assert own.id != there.id


def test_only_the_table_that_was_asked_for(stage: Stage) -> None:
    stage.carry_out(snapshots.request(stage.database, NAME, table="public.items"))
    assert {row.type for row in stage.rows()} == {"items"} == {sweep.type for _, _, sweep in stage.sweeps()}
    unknown = snapshots.request(stage.database, NAME, table="public.nothing")
    stage.run_until(lambda: stage.done(unknown))
    state = stage.state(unknown)
    assert (state.status, state.detail) == ("failed", "table public.nothing is not captured")


def test_silent_changes_are_mended(stage: Stage) -> None:
    # Mutants: without the sweep the deleted rows stay; at the version of a mark taken before the request the changed
    # ones keep their old state.
    stage.captured.run("update t set v = 1 where id <= 10")
    stage.carry_out(snapshots.request(stage.database, NAME))
    silently(stage.captured, "update t set v = 7 where id <= 10", "delete from items where id <= 10")
    stage.captured.run(
        'alter table t disable trigger "!cdc"',
        "insert into t values (100, 1, 7)",
        'alter table t enable trigger "!cdc"',
    )
    stage.carry_out(snapshots.request(stage.database, NAME))
    assert consumed(stage, random.Random(1)) == there(stage)


def test_whatever_the_order_of_partitions_a_sink_that_sweeps_ends_as_the_table(stage: Stage) -> None:
    """Writers, silent changes and snapshots at once; then each partition read in order, the partitions in any order.

    Mutants: no sweep; the mark just taken instead of the newest valid one.
    """
    stop = threading.Event()
    threads = [threading.Thread(target=_write, args=(stage.captured, seed, stop)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(3):
            silently(
                stage.captured,
                f"delete from items where id % 13 = {number}",
                f"update t set v = -1 where id % 11 = {number}",
            )
            stage.carry_out(snapshots.request(stage.database, NAME))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    stage.captured.run("insert into t values (9999, 1, 1)")
    stage.run_until(lambda: any(event.key["id"] == 9999 for event in stage.changes()))
    expected = there(stage)
    for seed in range(10):
        assert consumed(stage, random.Random(seed)) == expected


def _write(captured: Captured, seed: int, stop: threading.Event) -> None:
    chance = random.Random(seed)
    with captured.writer() as writer:
        while not stop.wait(0.002):
            with writer.transaction(force_rollback=chance.random() < 0.1):
                for _ in range(chance.choice([1, 1, 3])):
                    id, v = 3 * chance.randrange(20) + seed + 1, chance.randrange(10**6)
                    if chance.random() < 0.3:
                        writer.execute("delete from items where t_id = %s", (id,))
                    elif chance.random() < 0.5:
                        writer.execute("update t set v = %s where id = %s", (v, id))
                    else:
                        writer.execute(
                            "insert into items values (%s, %s, 'y') on conflict (id) do update set note = 'z'",
                            (1000 * (seed + 1) + chance.randrange(30), id),
                        )
                stop.wait(0.1 if seed < 2 else 0)  # so that snapshots begin while changes are not committed


def there(stage: Stage) -> dict[tuple[str, object], object]:
    """The source's rows: their last column by type and key."""
    found: dict[tuple[str, object], object] = {}
    for table in ("t", "items"):
        query = f"select id, {'v' if table == 't' else 'note'} from public.{table}"
        found |= {(table, id): value for id, value in stage.queue.connection.execute(query.encode())}
    return found


def consumed(stage: Stage, chance: random.Random) -> dict[tuple[str, object], object]:
    """What a sink has that takes the higher version, and runs a sweep once it has passed it everywhere."""
    queues: dict[tuple[str, int], list[Any]] = {}
    for topic in ("", ".snapshot"):
        for record in reversed(stage.records(topic)):
            queues.setdefault((topic, record.partition), []).append(record)
    versions: dict[tuple[str, object], tuple[int, object]] = {}
    passed: Counter[str] = Counter()
    while queues:
        place = chance.choice(sorted(queues))
        record = queues[place].pop()
        if not queues[place]:
            del queues[place]
        sweep = decode_sweep(record.value) if record.key is None else None
        if sweep is not None:
            passed[sweep.id] += 1
            if passed[sweep.id] == len(EVERYWHERE):
                for key, (version, value) in list(versions.items()):
                    if key[0] == sweep.type and version < sweep.version and value is not None:
                        versions[key] = (sweep.version, None)
            continue
        event = decode(record.value, record.key.decode())
        key = event.type, event.key["id"]
        if event.version > versions.get(key, (0, None))[0]:
            row = None if event.deleted else event.row()
            versions[key] = (event.version, row and row["v" if event.type == "t" else "note"])
    return {key: value for key, (_, value) in versions.items() if value is not None}
