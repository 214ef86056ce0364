"""Partitioned tables: captured under the root's name, whichever partition is written, also one that comes later."""

import json

import pytest

from pipeline.capture import rows
from pipeline.capture.queue import notices
from pipeline.capture.session import session
from pipeline.errors import ConfigurationError
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

# The second partition has its columns in another order, and a dropped one: its rows lie differently on disk.
TABLE = (
    "create table t (id integer, day date, merchant_id integer, v integer, primary key (id, day))"
    " partition by range (day)",
    "create table t_1 partition of t for values from ('2026-01-01') to ('2026-02-01')",
    "create table t_2 (v integer, dropped text, merchant_id integer, day date not null, id integer not null)",
    "alter table t_2 drop column dropped",
    "alter table t attach partition t_2 for values from ('2026-02-01') to ('2026-03-01')",
)


def made(captured: Captured) -> None:
    captured.run(*TABLE)
    captured.install(t="merchant_id")


def seen(captured: Captured) -> list[tuple[str, str, object, object, object]]:
    return [
        (event.op, event.table, event.key["id"], event.key["day"], event.row()["v"])
        for event in captured.drain()
    ]


def test_writes_through_root_and_partitions_are_the_roots(captured: Captured) -> None:
    # Mutants: the name of the partition that was written; a delete left out because the row lives on elsewhere.
    made(captured)
    captured.run(
        "insert into t values (1, '2026-01-05', 6, 10), (2, '2026-02-05', 6, 20)",
        "update t_2 set v = 21",
        "update t set day = '2026-02-06' where id = 1",  # to the other partition
        "delete from t_2 where id = 2",
        "insert into t_1 values (3, '2026-01-07', 6, 30)",
    )
    assert seen(captured) == [
        ("c", "public.t", 1, "2026-01-05", 10),
        ("c", "public.t", 2, "2026-02-05", 20),
        ("u", "public.t", 2, "2026-02-05", 21),
        ("d", "public.t", 1, "2026-01-05", 10),
        ("c", "public.t", 1, "2026-02-06", 10),
        ("d", "public.t", 2, "2026-02-05", 21),
        ("c", "public.t", 3, "2026-01-07", 30),
    ]
    with session(captured.source.url) as connection:
        read = rows.read_chunk(connection, captured.tables[0], None).rows
    assert [json.loads(row.image)["v"] for row in read] == [10, 30]


def test_new_attached_and_nested_partitions_are_captured_and_detached_ones_are_not(
    captured: Captured,
) -> None:
    made(captured)
    captured.run(
        "create table t_3 partition of t for values from ('2026-03-01') to ('2026-05-01') partition by range (day)",
        "create table t_3a partition of t_3 for values from ('2026-03-01') to ('2026-04-01')",
        "create table t_4 (like t)",
        "alter table t attach partition t_4 for values from ('2026-05-01') to ('2026-06-01')",
        "insert into t values (1, '2026-03-05', 6, 1), (2, '2026-05-05', 6, 2)",
        "insert into t_3a values (3, '2026-03-06', 6, 3)",
        "alter table t detach partition t_4",
        "insert into t_4 values (4, '2026-05-05', 6, 4)",
        "truncate t_4",
    )
    captured.install(t="merchant_id")
    captured.run("truncate t_4")
    assert [place[2] for place in seen(captured)] == [1, 2, 3]
    with session(captured.source.url) as connection:
        assert notices(connection) == []


def test_installing_again_finds_partitions_that_came_since_and_uninstall_leaves_none(
    captured: Captured,
) -> None:
    made(captured)
    captured.run("create table t_3 partition of t for values from ('2026-03-01') to ('2026-04-01')")
    captured.install(t="merchant_id")
    captured.run("truncate t_3")
    with session(captured.source.url) as connection:
        assert [n.reason for n in notices(connection)] == ["partition public.t_3 truncated"]
    captured.uninstall()
    with session(captured.source.url) as connection:
        left = connection.execute("select count(*) from pg_trigger where not tgisinternal").fetchone()
    assert left == (0,)


def test_another_trigger_on_one_partition_makes_the_table_strict(captured: Captured) -> None:
    captured.run(
        *TABLE,
        "create function noise() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger zz after update on t_1 for each row execute function noise()",
    )
    captured.install(t="merchant_id")
    assert captured.tables[0].strict
    captured.run("insert into t values (1, '2026-01-05', 6, 10)", "update t set day = '2026-02-06'")
    assert [(op, day) for op, _, _, day, _ in seen(captured)] == [
        ("c", "2026-01-05"),
        ("d", "2026-01-05"),
        ("c", "2026-02-06"),
    ]


def test_partitions_by_statement_are_refused(captured: Captured) -> None:
    captured.run(*TABLE)
    with pytest.raises(ConfigurationError, match="statements on a partition would go unseen"):
        captured.install_tables(t={"capture": "statement"})
