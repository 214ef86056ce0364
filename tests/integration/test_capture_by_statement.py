"""Capture by statement gives the events of capture by row, in their order."""

import pytest

from pipeline.capture.queue import Event, Queue, notices
from pipeline.capture.session import session
from pipeline.errors import ConfigurationError
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

TABLE = "(id integer primary key, merchant_id integer, v text, card text)"
# With it, and without sequential scans, rows are found in the order of the key, not as they happen to lie.
BY_KEY = "id between -100000 and 100000"
STATEMENTS = (
    "insert into {0} select g, g % 5, 'v' || g, '4111111111111111' from generate_series(1, 300) g",
    "update {0} set v = v || '!' where id % 2 = 0 and {1}",
    "update {0} set merchant_id = merchant_id + 1 where id % 3 = 0 and {1}",
    "update {0} set id = -id where id % 7 = 0 and {1}",
    "update {0} set id = id + 1000, merchant_id = 9 where id > 200 and {1}",
    "update {0} set v = 'none' where false",
    "delete from {0} where id % 5 = 0 and {1}",
    "with new as (insert into {0} values (5000, 6, 'a', null), (5001, null, 'b', null) returning id)"
    " update {0} set v = 'cte' where id = 1",
    "merge into {0} t using (values (1, 'm'), (9001, 'n')) as s (id, v) on s.id = t.id"
    " when matched and t.id = 1 then delete when not matched then insert values (s.id, 6, s.v, null)",
)


def raw(captured: Captured) -> list[Event]:
    with session(captured.source.url) as connection:
        queue = Queue(connection)
        queue.tick()
        events: list[Event] = []
        while (batch := queue.next_batch()) is not None:
            events += queue.events(batch)
            queue.finish(batch)
        return events


def told(events: list[Event], table: str) -> list[tuple[object, ...]]:
    return [
        (event.op, event.merchant, event.key, event.before, event.after)
        for event in events
        if event.table == f"public.{table}"
    ]


def test_events_and_order_are_those_of_the_row_trigger(captured: Captured) -> None:
    captured.run(f"create table r {TABLE}", f"create table s {TABLE}")
    options = {"columns": {"card": "last4"}}
    captured.install_tables(r=options, s={**options, "capture": "statement"})
    for statement in STATEMENTS:
        for table in ("r", "s"):
            with captured.writer() as writer:
                writer.execute("set enable_seqscan = off; set enable_bitmapscan = off")
                writer.execute(statement.format(table, BY_KEY).encode())
    events = raw(captured)
    by_row, by_statement = told(events, "r"), told(events, "s")
    assert by_statement == by_row


def test_an_upsert_gives_the_same_events_of_each_row(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    captured.install_tables(t={"capture": "statement"})
    captured.run("insert into t values (1, 6, 'a', null)")
    captured.run(
        "insert into t values (1, 6, 'x', null), (5, 6, 'y', null) on conflict (id) do update set v = excluded.v || '!'"
    )
    events = captured.drain()
    assert sorted((event.op, event.key["id"], event.row()["v"]) for event in events) == [
        ("c", 1, "a"),
        ("c", 5, "y"),
        ("u", 1, "x!"),
    ]


def test_merges_of_several_actions_and_cascades_give_the_events_of_each_row(captured: Captured) -> None:
    # Mutant: one trigger for several operations: PostgreSQL gives it the rows of one of them.
    captured.run(
        "create table p (id integer primary key)",
        "create table r (id integer primary key, merchant_id integer, v text, p integer references p"
        " on delete cascade on update cascade)",
        "create table s (like r including all)",
        "alter table s add foreign key (p) references p on delete cascade on update cascade",
    )
    captured.install_tables(r={}, s={"capture": "statement"})
    for statement in (
        "insert into p values (1), (2), (3)",
        "insert into {0} select g, 6, 'v', g %% 3 + 1 from generate_series(1, 9) g",
        "merge into {0} t using (select g, case when g < 3 then 'd' when g < 6 then 'u' end as what from"
        " generate_series(1, 12) g) n on n.g = t.id when matched and what = 'd' then delete"
        " when matched and what = 'u' then update set v = 'm', merchant_id = 7 when matched then do nothing"
        " when not matched then insert values (n.g, 8, 'new', null)",
        "insert into {0} values (5, 6, 'x', 1), (50, 6, 'y', 2) on conflict (id) do update set v = excluded.v, id = 51",
        "update p set id = id + 10",
        "delete from p",
    ):
        for table in ("r", "s") if "{0}" in statement else ("",):
            captured.run(statement.replace("%%", "%").format(table))
    events = raw(captured)
    by_row, by_statement = told(events, "r"), told(events, "s")
    assert sorted(by_statement, key=repr) == sorted(by_row, key=repr)
    for table in ("r", "s"):
        newest = {}
        for event in sorted(events, key=lambda event: (event.ev, event.op)):
            if event.table == f"public.{table}":
                newest[event.merchant, event.key] = event
        with captured.writer() as writer:
            living = writer.execute(f"select merchant_id, id from {table}".encode()).fetchall()
        assert {place for place, event in newest.items() if event.op != "d"} == {
            (str(merchant), f'{{"id":{id}}}') for merchant, id in living
        }


def test_a_key_that_is_left_and_taken_in_one_statement(captured: Captured) -> None:
    # Mutant: without ORDER BY a hash join in several batches hands the pairs over in any order, and a key that one row
    # leaves and the next one takes ends deleted.
    captured.run(f"create table t {TABLE}")
    captured.install_tables(t={"capture": "statement"})
    with captured.writer() as writer:
        writer.execute("set enable_mergejoin = off; set enable_nestloop = off; set work_mem = '64kB'")
        writer.execute("insert into t select g, 6, g, null from generate_series(3000, 1, -1) g")
        writer.execute("update t set id = id + 1")
    newest = {}
    for event in sorted(captured.drain(), key=lambda event: event.version):
        newest[event.key["id"]] = event
    assert {key: event.row()["v"] for key, event in newest.items() if not event.deleted} == {
        number + 1: str(number) for number in range(1, 3001)
    }


def test_an_image_that_fails_breaks_no_statement(captured: Captured) -> None:
    # Mutant: without the EXCEPTION block the application's statement fails.
    captured.run(f"create table t {TABLE}")
    captured.install_tables(t={"capture": "statement"})
    captured.run(
        "insert into t values (1, 6, 'a', null), (2, 6, 'b', null)", "alter table t drop column card"
    )
    captured.run(
        "update t set v = 'c'", "delete from t where id = 1", "alter table t drop column merchant_id"
    )
    captured.run("insert into t values (3, 'd')")
    events = raw(captured)
    assert [(event.op, event.key, event.after is None) for event in events][2:] == [
        ("u", '{"id":1}', True),
        ("u", '{"id":2}', True),
        ("d", '{"id":1}', True),
    ]
    with session(captured.source.url) as connection:
        assert len(notices(connection)) == 4


def test_changing_the_way_of_capture_leaves_one_way(captured: Captured) -> None:
    captured.run(f"create table t {TABLE}")
    for number, options in enumerate(({"capture": "statement"}, {}, {"capture": "statement"})):
        captured.install_tables(t=options)
        captured.run(f"insert into t values ({number}, 6, 'x', null)")
        assert len(captured.drain()) == 1


def test_other_triggers_forbid_it(captured: Captured) -> None:
    captured.run(
        f"create table t {TABLE}",
        "create function noise() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger zz after update on t for each row execute function noise()",
    )
    with pytest.raises(ConfigurationError, match="capture by statement cannot follow that"):
        captured.install_tables(t={"capture": "statement"})
