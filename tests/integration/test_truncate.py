"""TRUNCATE: of a table a sweep at its place, of a partition a snapshot; and partitions that come and go by themselves."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pipeline.capture import chunks, partitions, snapshot
from pipeline.capture.queue import Queue, notices
from pipeline.capture.session import session
from pipeline.control import snapshots
from pipeline.domain.event import decode
from pipeline.domain.sweep import decode_sweep
from pipeline.domain.version import EVENT, pack, unpack
from tests.integration.captured import NAME, Captured
from tests.integration.relaying import Stage, staged

pytestmark = pytest.mark.integration

TABLES = (
    "create table t (id bigint primary key, merchant_id integer)",
    "create table many (id bigint primary key, merchant_id integer)",
    "create table p (id integer, merchant_id integer, primary key (id)) partition by range (id)",
    "create table p_1 partition of p for values from (1) to (100)",
    "create table p_2 partition of p for values from (100) to (200)",
)


@pytest.fixture
def stage(captured: Captured, kafka_bootstrap: str, kafka_topic: Callable[..., str]) -> Iterator[Stage]:
    captured.run(*TABLES)
    captured.install_tables(t={}, many={"capture": "statement"}, p={})
    with staged(captured, kafka_bootstrap, kafka_topic(3), partitions=3) as made:
        made.run_until(lambda: made.queue.lag().pending == 0)
        yield made


def reasons(stage: Stage) -> list[str]:
    return [notice.reason for notice in notices(stage.queue.connection)]


def requested(stage: Stage) -> list[str | None]:
    return [request.table for request in snapshots.open_requests(stage.database, NAME)]


def look(stage: Stage) -> None:
    """The relay's look at partitions and notices, which it takes every five seconds, with what came before relayed."""
    stage.captured.run("insert into t values ((select coalesce(max(id), 0) + 1 from t), 6)")
    stage.run_until(lambda: stage.queue.lag().pending == 0)
    stage.relay._repairs.look()


@pytest.mark.parametrize("table", ["t", "many", "p"])
def test_truncate_of_a_table_is_a_sweep_at_its_place(stage: Stage, table: str) -> None:
    # Mutants: no event (no sweep); the sweep in one partition alone; its version that of the batch's last event.
    rows = f"insert into {table} select g, g from generate_series(%s, %s) g"
    stage.captured.run(rows % (1, 20), f"truncate {table}", rows % (11, 30))
    stage.run_until(lambda: len(stage.changes()) == 40)
    swept = stage.sweeps()
    assert {(topic, partition) for topic, partition, _ in swept} == {
        (topic, partition) for topic in ("", ".snapshot") for partition in range(3)
    }
    (sweep,) = {sweep for _, _, sweep in swept}
    assert (sweep.why, sweep.type, sweep.merchant) == ("truncate", table, None)
    ev = unpack(sweep.version).ev_id
    assert (sweep.id, sweep.version) == (f"{NAME}:{table}:1:{ev}", pack(1, ev, EVENT))
    before = {event.key["id"] for event in stage.changes() if event.version < sweep.version}
    after = {event.key["id"] for event in stage.changes() if event.version > sweep.version}
    assert (before, after) == (set(range(1, 21)), set(range(11, 31)))
    look(stage)
    assert reasons(stage) == [] and requested(stage) == []


def test_the_sweep_stands_between_the_changes_before_and_after_it(stage: Stage) -> None:
    # Mutant: sweeps sent at the end of their batch; consumers would have removed nothing of what came before it in others.
    with stage.captured.writer() as writer, writer.transaction():
        writer.execute("insert into t values (1, 6)")
        writer.execute("truncate t")
        writer.execute("insert into t values (2, 6)")
    stage.run_until(lambda: len(stage.changes()) == 2)
    partition = next(record.partition for record in stage.records("") if record.key == b"6")
    kinds = [record.key for record in stage.records("") if record.partition == partition]
    assert kinds == [b"6", None, b"6"]


@pytest.mark.parametrize("place", ["read", "published in part"])
def test_rows_read_before_a_truncate_are_not_published_behind_its_sweep(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """They are older than the triggers, so no sink has them to be swept, and no tombstone stops them later.

    Mutant: the relay does not tell the snapshot of it.
    """
    older = "insert into t select g, g from generate_series(1, 100) g"
    with psycopg.connect(stage.captured.source.admin_url, autocommit=True) as admin:
        admin.execute("set session_replication_role = replica")
        admin.execute(older.encode())
    truncated: list[str] = []

    def truncate() -> None:
        if not truncated:
            truncated.append(place)
            stage.captured.run("truncate t", "insert into t values (777, 7)")

    if place == "read":
        read = chunks.read_chunk

        def read_chunk(*given: Any, **named: Any) -> chunks.ReadChunk | None:
            found = read(*given, **named)
            if found is not None:
                truncate()
            return found

        monkeypatch.setattr(chunks, "read_chunk", read_chunk)
    else:
        monkeypatch.setattr(snapshot, "_ROWS_PER_GLANCE", 1)
        monkeypatch.setattr(snapshot, "_STEP", 0.0)
        monkeypatch.setattr(snapshot, "_STEP_BESIDE_TRAFFIC", 0.0)
        send = stage.work._publisher.send

        def sent(topic: str, merchant: str, value: bytes) -> None:
            if topic.endswith(".snapshot"):
                truncate()
            send(topic, merchant, value)

        monkeypatch.setattr(stage.work._publisher, "send", sent)
    stage.carry_out(snapshots.request(stage.database, NAME, table="public.t"))
    assert truncated
    late, swept = [], set[int]()
    for record in stage.records(".snapshot"):
        if record.key is None and (sweep := decode_sweep(record.value)) is not None:
            if sweep.why == "truncate":
                swept.add(record.partition)
        elif record.partition in swept:
            row = decode(record.value, record.key.decode())
            # A later row may come under an older mark: it has an event of its own, which wins.
            late += [row.key["id"]] if row.key["id"] != 777 else []
    assert len(swept) == 3 and late == []


def test_truncate_of_one_partition_is_mended_by_a_snapshot_of_its_root(stage: Stage) -> None:
    # Mutants: without triggers on the partitions it leaves no trace; without the look nobody asks for the snapshot; with
    # one requested at every look they pile up.
    stage.captured.run("insert into p values (1, 6), (101, 6)", "truncate p_1")
    assert reasons(stage) == ["partition public.p_1 truncated"]
    look(stage)
    snapshots.pause(stage.database, NAME, paused=True)
    look(stage)
    assert requested(stage) == ["public.p"]
    assert stage.sweeps() == []
    snapshots.pause(stage.database, NAME, paused=False)
    (request,) = snapshots.open_requests(stage.database, NAME)
    stage.carry_out(request.id)
    assert [event.key["id"] for event in stage.rows()] == [101]
    assert {sweep.type for _, _, sweep in stage.sweeps()} == {"p"}
    look(stage)
    assert reasons(stage) == [] and requested(stage) == []


def test_a_notice_during_a_snapshot_asks_for_another_one_after_it(stage: Stage) -> None:
    # Mutant: taken as answered by the open one, which has passed the partition already.
    request = snapshots.request(stage.database, NAME, table="public.p")
    stage.run_until(lambda: bool(snapshots.tables(stage.database, request)))
    snapshots.pause(stage.database, NAME, paused=True)
    stage.captured.run("truncate p_1")
    look(stage)
    assert requested(stage) == ["public.p"]
    snapshots.pause(stage.database, NAME, paused=False)
    stage.carry_out(request)
    look(stage)
    assert requested(stage) == ["public.p"]


def test_partitions_truncated_with_their_root_need_no_snapshot_unless_written_since(stage: Stage) -> None:
    # Mutants: every partition's notice counts (a snapshot after each TRUNCATE of a root); none does after a root's in the
    # same transaction (rows written in between stay in the sinks).
    with stage.captured.writer() as writer, writer.transaction():
        writer.execute("truncate p")
        writer.execute("insert into p values (1, 6), (101, 6)")
    look(stage)
    assert reasons(stage) == [] and requested(stage) == []
    with stage.captured.writer() as writer, writer.transaction():
        writer.execute("truncate p")
        writer.execute("insert into p values (1, 6), (101, 6)")
        writer.execute("truncate p_1")
    look(stage)
    assert reasons(stage) == ["partition public.p_1 truncated"] and requested(stage) == ["public.p"]


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["alter table p detach partition p_1"], "detached or dropped: public.p_1"),
        (["drop table p_1"], "detached or dropped: public.p_1"),
        (
            [
                "create table p_3 (like p including all)",
                "insert into p_3 values (201, 6)",
                "alter table p attach partition p_3 for values from (200) to (300)",
            ],
            "attached with rows of its own: public.p_3",
        ),
        (
            [
                "begin; create table p_3 (like p including all); insert into p_3 values (201, 6);"
                " alter table p attach partition p_3 for values from (200) to (300); commit"
            ],
            "attached with rows of its own: public.p_3",
        ),
    ],
    ids=["detached", "dropped", "attached", "attached where it was filled"],
)
def test_partitions_that_take_or_bring_rows_are_noticed(
    stage: Stage, statements: list[str], reason: str
) -> None:
    # Mutant: no comparison with what was there; the rows stay in the sinks, or never come.
    stage.captured.run("insert into p values (1, 6), (101, 6)", *statements)
    look(stage)
    assert reasons(stage) == [reason] and requested(stage) == ["public.p"]
    (request,) = snapshots.open_requests(stage.database, NAME)
    stage.carry_out(request.id)
    look(stage)
    assert reasons(stage) == [] and requested(stage) == []


def test_a_partition_that_was_away_in_between_is_noticed(stage: Stage) -> None:
    # Mutant: compared by name alone; what was written to it meanwhile made no event.
    stage.captured.run(
        "alter table p detach partition p_1",
        "insert into p_1 values (1, 6)",
        "alter table p attach partition p_1 for values from (1) to (100)",
    )
    look(stage)
    assert reasons(stage)[0] == "detached or dropped: public.p_1" and requested(stage) == ["public.p"]


def test_new_partitions_need_no_snapshot_and_get_their_trigger(stage: Stage) -> None:
    # Mutant: without the trigger TRUNCATE of a new partition leaves no trace until the next install.
    stage.captured.run(
        "create table p_3 partition of p for values from (200) to (300)",
        "insert into p values (201, 6)",
        "create table p_4 (like p including all)",
        "alter table p attach partition p_4 for values from (300) to (400)",
    )
    look(stage)
    assert reasons(stage) == [] and requested(stage) == []
    stage.captured.run("truncate p_3", "truncate p_4")
    assert [reason[-9:] for reason in reasons(stage)] == ["truncated"] * 2


def test_a_partition_that_capture_may_not_read_itself_stops_no_relay(stage: Stage) -> None:
    # Mutant: the error left to the relay, which ends at every start. Of such a one only its past tells whether it brings rows.
    stage.captured.run(
        "create table p_3 partition of p for values from (200) to (300)",
        "create table p_4 (like p including all)",
        "insert into p_4 values (301, 6)",
        "alter table p attach partition p_4 for values from (300) to (400)",
    )
    with psycopg.connect(stage.captured.source.admin_url, autocommit=True) as admin:
        admin.execute("create role stranger; grant usage on schema cdc to stranger")
        try:
            admin.execute("grant all on all tables in schema cdc to stranger")
            admin.execute("grant all on all sequences in schema cdc to stranger")
            admin.execute("alter function cdc.follow_partitions() owner to stranger")
            admin.execute("grant execute on function cdc.follow_partitions() to pipeline")
            look(stage)
        finally:
            admin.execute("alter function cdc.follow_partitions() owner to pipeline")
            admin.execute("drop owned by stranger; drop role stranger")
    assert reasons(stage) == ["attached with rows of its own: public.p_4"]


def test_a_look_waits_for_nobody(stage: Stage) -> None:
    # Mutant: without a bound on its waiting for locks it keeps changes of all tables waiting, and writers behind it.
    stage.captured.run("create table p_3 partition of p for values from (200) to (300)")
    with stage.captured.writer() as writer:
        writer.execute("set idle_in_transaction_session_timeout = '20s'")
        with writer.transaction():
            writer.execute("lock table p_3 in row exclusive mode")
            stage.relay._repairs.look()
            stage.captured.run("insert into p values (201, 6)")
        with writer.transaction():
            writer.execute("lock table p in access exclusive mode")
            stage.relay._repairs.look()
    stage.relay._repairs.look()
    stage.captured.run("truncate p_3")
    assert reasons(stage) == ["partition public.p_3 truncated"]


def test_a_detached_partition_is_truncated_unheard(stage: Stage) -> None:
    # Mutant: taken by its argument for the root, or for a part of it.
    stage.captured.run("alter table p detach partition p_1")
    look(stage)
    stage.captured.run("truncate p_1", "insert into t values (99, 6)")
    stage.run_until(lambda: any(event.key["id"] == 99 for event in stage.changes()))
    assert all("truncated" not in reason for reason in reasons(stage))
    assert all(sweep.why == "snapshot" for _, _, sweep in stage.sweeps())


def test_installing_again_forgets_no_partition_that_went(stage: Stage) -> None:
    # Mutant: the partitions recorded anew at each install, so that one dropped before it is never missed.
    stage.captured.run("drop table p_1")
    stage.captured.install_tables(t={}, many={"capture": "statement"}, p={})
    assert reasons(stage) == ["detached or dropped: public.p_1"]


VERSION_2 = """
drop function cdc.follow_partitions();
drop table cdc.partitions;
alter table cdc.notices drop column mendable;
create or replace function cdc.truncated() returns trigger language plpgsql security definer as $$ begin
  insert into cdc.notices (table_name, reason) values (tg_argv[0], 'truncated'); return null; end $$;
update cdc.identity set version = 2;
"""


def test_an_install_of_version_2_is_brought_up_to_date_in_place(captured: Captured) -> None:
    # Mutant: the trigger function kept where there is one already.
    captured.run(*TABLES)
    captured.install_tables(t={}, p={})
    with session(captured.source.url) as connection:
        connection.execute(VERSION_2)
        captured.run("drop table p_2")
        captured.install_tables(t={}, p={})
        captured.run("truncate t", "truncate p_1", "drop table p_1")
        partitions.follow(connection)
        assert [notice.reason for notice in notices(connection)] == [
            "partition public.p_1 truncated",
            "detached or dropped: public.p_1",
        ]
        queue = Queue(connection)
        queue.tick()
        batch = queue.next_batch()
        assert batch is not None
        assert [(event.op, event.table) for event in queue.events(batch)] == [
            ("t", "public.t"),
            ("tp", "public.p"),
        ]
