"""Whose a row is: nobody's, or its parent's, whatever happens to the parent; and what a change of owner becomes."""

import threading
from collections.abc import Sequence

import psycopg
import pytest

from devstack.process import wait_until
from pipeline.capture import rows
from pipeline.capture.queue import notices
from pipeline.capture.session import session
from pipeline.domain.event import Event
from pipeline.errors import ConfigurationError
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

PARENT = "create table orders (id integer primary key, merchant_id integer, v integer)"
CHILD = (
    "create table items (id integer primary key, order_id integer references orders on delete {0} on update {0},"
    " v integer)"
)
INDEX = "create index on items (order_id)"
BY_PARENT = {"merchant": {"parent": "public.orders", "on": "order_id"}}


def made(captured: Captured, cascade: str = "cascade", *before: str) -> None:
    captured.run(PARENT, CHILD.format(cascade), INDEX, *before)
    captured.install_tables(orders={}, items=BY_PARENT)


def told(events: Sequence[Event]) -> list[tuple[str, str, object]]:
    """Operation, merchant and key of the children's events."""
    return [(event.op, event.merchant, event.key["id"]) for event in events if event.type == "items"]


def owners_match(captured: Captured) -> None:
    """Each child's noted owner is the merchant that a snapshot would give it."""
    with session(captured.source.url) as connection:
        (items,) = (table for table in captured.tables if table.type == "items")
        read = {row.key: row.merchant for row in rows.read_rows(connection, items)}
        noted = connection.execute("select count(*) from cdc.owners").fetchone()
        agreeing = connection.execute(
            "select count(*) from cdc.owners join unnest(%s::text[], %s::text[]) as r (key, merchant)"
            " on owners.key = sha256(convert_to(r.key, 'UTF8')) and owners.merchant = r.merchant",
            (list(read), list(read.values())),
        ).fetchone()
    assert noted == agreeing == (len(read),)


def test_rows_that_belong_to_no_merchant(captured: Captured) -> None:
    captured.run("create table card_types (id integer primary key, merchant_id integer)")
    captured.install_tables(card_types={"merchant": {"none": True}})
    captured.run(
        "insert into card_types values (1, 6)",
        "update card_types set merchant_id = 7",
        "delete from card_types",
    )
    assert [(event.op, event.merchant) for event in captured.drain()] == [
        ("c", "_shop"),
        ("u", "_shop"),
        ("d", "_shop"),
    ]
    with session(captured.source.url) as connection:
        assert list(rows.read_rows(connection, captured.tables[0])) == []


def test_a_child_belongs_to_the_merchant_of_its_parent(captured: Captured) -> None:
    made(captured)
    captured.run(
        "insert into orders values (1, 6, 0), (2, 7, 0), (3, null, 0)",
        "insert into items values (1, 1, 0), (2, 2, 0), (3, 3, 0), (4, null, 0)",
        "update items set v = 1 where id = 1",
        "update items set order_id = 2 where id = 1",
        "update items set id = 11 where id = 1",
        "delete from items where id = 11",
    )
    assert told(captured.drain()) == [
        ("c", "6", 1), ("c", "7", 2), ("c", "_shop", 3), ("c", "_shop", 4), ("u", "6", 1), ("d", "6", 1), ("u", "7", 1),
        ("d", "7", 1), ("u", "7", 11), ("d", "7", 11),
    ]  # fmt: skip
    owners_match(captured)


def test_children_go_with_a_parent_that_changes_hands(captured: Captured) -> None:
    # Mutant: without the fan-out the children stay with the old merchant for ever.
    made(captured)
    captured.run(
        "insert into orders values (1, 6, 0)",
        "insert into items values (1, 1, 10), (2, 1, 20)",
        "update orders set v = 1",
        "update orders set merchant_id = 7",
    )
    events = captured.drain()
    assert told(events)[2:] == [("d", "6", 1), ("u", "7", 1), ("d", "6", 2), ("u", "7", 2)]
    assert [event.row()["v"] for event in events if event.type == "items"][2:] == [10, 10, 20, 20]
    moved = [event for event in events if event.type == "items"][3]
    assert bytes(moved.before) == b"null"
    owners_match(captured)


@pytest.mark.parametrize("before", [False, True], ids=["after the install", "before the install"])
def test_a_cascade_deletes_children_for_their_last_merchant(captured: Captured, before: bool) -> None:
    # Mutant: the merchant read from the parent, which is gone by then, is nobody: the old merchant keeps the row.
    born = ("insert into orders values (1, 6, 0), (2, 7, 0)", "insert into items values (1, 1, 0), (2, 2, 0)")
    made(captured, "cascade", *(born if before else ()))
    captured.run(*(() if before else born), "delete from orders")
    events = captured.drain()
    assert [one for one in told(events) if one[0] == "d"] == [("d", "6", 1), ("d", "7", 2)]
    owners_match(captured)


@pytest.mark.parametrize("before", [False, True], ids=["after the install", "before the install"])
def test_cascades_of_a_parents_key_and_of_null(captured: Captured, before: bool) -> None:
    born = ("insert into orders values (1, 6, 0)", "insert into items values (1, 1, 0)")
    made(captured, "cascade", *(born if before else ()))
    captured.run(*(() if before else born), "update orders set id = 5, merchant_id = 7")
    assert told(captured.drain())[-2:] == [("d", "6", 1), ("u", "7", 1)]
    owners_match(captured)


def test_a_child_that_loses_its_parent_belongs_to_nobody(captured: Captured) -> None:
    made(captured, "set null")
    captured.run(
        "insert into orders values (1, 6, 0)", "insert into items values (1, 1, 0)", "delete from orders"
    )
    assert told(captured.drain()) == [("c", "6", 1), ("d", "6", 1), ("u", "_shop", 1)]
    owners_match(captured)


def _waits(captured: Captured) -> bool:
    with session(captured.source.url) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ).fetchone()
    return row is not None and row[0] > 0


@pytest.mark.parametrize("child_first", [True, False])
def test_a_child_that_comes_while_its_parent_changes_hands_ends_with_the_new_merchant(
    captured: Captured, child_first: bool
) -> None:
    # Mutants: without FOR UPDATE on the parent, or FOR KEY SHARE by the child, neither sees the other, and the child
    # stays with the old merchant; with the lock and the reading in one statement, it gets the merchant from before.
    made(captured)
    captured.run("insert into orders values (1, 6, 0)")
    statements = ["insert into items values (1, 1, 0)", "update orders set merchant_id = 7"]
    first, second = statements if child_first else reversed(statements)

    def later() -> None:
        captured.run(second)

    other = threading.Thread(target=later)
    with captured.writer() as writer, writer.transaction():
        writer.execute(first.encode())
        other.start()
        assert wait_until(lambda: _waits(captured), 10)
    other.join(10)
    last = told(captured.drain())[-1]
    assert last[1:] == ("7", 1)
    owners_match(captured)


def test_under_repeatable_read_a_child_never_takes_a_merchant_of_the_past(captured: Captured) -> None:
    # Mutant: FOR KEY SHARE there too gives the child the merchant of its snapshot, for ever.
    made(captured)
    captured.run("insert into orders values (1, 6, 0)")
    with captured.writer() as writer:
        writer.execute("begin isolation level repeatable read")
        writer.execute("select * from orders")
        captured.run("update orders set merchant_id = 7")
        with pytest.raises(psycopg.errors.SerializationFailure):
            writer.execute("insert into items values (1, 1, 0)")
        writer.execute("rollback")
        writer.execute("begin isolation level repeatable read")
        writer.execute("update orders set merchant_id = 8")
        writer.execute("commit")
    with session(captured.source.url) as connection:
        assert ["may not see" in notice.reason for notice in notices(connection)] == [True]


CHANGES = (
    "alter table orders rename column merchant_id to owner",
    "alter table orders rename column id to number",
    "alter table orders rename to sold",
    "alter table orders alter id type bigint",
    "alter table orders alter merchant_id type text",
    "alter table orders drop column merchant_id",
    "alter table items rename column order_id to of",
    "alter table items rename column v to w",
    "alter table items rename to things",
    "alter table items alter order_id type bigint",
    "alter table items alter id type bigint",
    "alter table items drop column v",
    "alter table items drop column order_id",
    "alter table items drop constraint items_order_id_fkey; drop table orders",
)


@pytest.mark.parametrize(
    ("change", "same_session"),
    [(change, True) for change in CHANGES] + [(CHANGES[0], False), (CHANGES[6], False)],
)
def test_a_table_that_is_altered_breaks_no_statement(
    captured: Captured, change: str, same_session: bool
) -> None:
    # Mutants: without the probe the lookup, which locks and so stands outside the EXCEPTION block, fails the application;
    # with fields of NEW in it a session with plans fails; so does the fan-out without its block; with a WHEN on the parent's
    # trigger the ALTER itself fails.
    made(captured)
    with captured.writer() as writer:
        for number in range(1, 13):
            writer.execute("insert into orders values (%s, 6, 0)", (number,))
            writer.execute("insert into items values (%s, %s, 0)", (number, number))
        if same_session:
            for number in range(1, 8):  # often enough for plans that are kept
                writer.execute("update items set v = 1, order_id = 12 where id = %s", (number,))
                writer.execute("update orders set merchant_id = merchant_id + 1 where id = %s", (number,))
                writer.execute("update orders set id = id + 100 where id = %s", (number,))
                writer.execute("delete from items where id = %s", (number,))
                writer.execute("delete from orders where id = %s", (number + 100,))
        writer.execute(change.encode())
        for statement in _statements_after(change):
            if same_session:
                writer.execute(statement.encode())
            else:
                captured.run(statement)
    with session(captured.source.url) as connection:
        assert notices(connection) != [] or change.endswith(("things", "bigint"))


def _statements_after(change: str) -> list[str]:
    """Every way to write the two tables, in the names they have after the change."""
    orders, items = "sold" if "sold" in change else "orders", "things" if "things" in change else "items"
    number, on = "number" if "number" in change else "id", "of" if " of" in change else "order_id"
    children = [
        f"insert into {items} (id, {on}) values (100, 8)",
        f"update {items} set {on} = 9 where id = 8",
    ]
    own = [f"update {items} set id = id + 1000 where id = 9", f"delete from {items} where id = 10"]
    parents = [
        f"update {orders} set v = v + 1",
        f"update {orders} set {'owner' if 'owner' in change else 'merchant_id'} = '8' where {number} = 11",
        f"update {orders} set {number} = {number} + 10 where {number} = 11",
        f"delete from {orders} where {number} = 12",
        f"delete from {orders}",
    ]
    if "drop column order_id" in change:
        children = []
    if "drop column merchant_id" in change:
        del parents[1]
    if "drop table" in change:
        parents = []
    return [*children, *own, *parents, f"delete from {items}"]


@pytest.mark.parametrize("on", ["orders", "items"])
def test_a_right_that_is_lost_breaks_no_statement(captured: Captured, on: str, postgres_url: str) -> None:
    # Mutants: a probe without FOR KEY SHARE, which asks for less than the lookup does; the fan-out without its block.
    made(captured)
    captured.run("insert into orders values (1, 6, 0), (2, 6, 0)", "insert into items values (1, 1, 0)")
    with psycopg.connect(captured.source.admin_url, autocommit=True) as admin:
        admin.execute(f"alter table {on} owner to devstack".encode())
        admin.execute(f"revoke all on {on} from app; grant select on {on} to pipeline".encode())
        for statement in (
            "insert into items values (2, 1, 0)",
            "update items set order_id = 2",
            "update orders set merchant_id = 7",
            "delete from items where id = 2",
            "delete from orders",
        ):
            admin.execute(statement.encode())
        admin.execute(f"alter table {on} owner to app".encode())
    with session(captured.source.url) as connection:
        assert notices(connection) != []


def test_bulk_deletes_of_parents_take_no_transaction_id_per_row(captured: Captured) -> None:
    # Mutant: an owner written for every child, noted already or not.
    made(captured)
    captured.run(
        "insert into orders select g, 6, 0 from generate_series(1, 300) g",
        "insert into items select g, g, 0 from generate_series(1, 300) g",
    )
    with captured.writer() as writer, writer.transaction():
        first = writer.execute("select txid_current() % 4294967296").fetchone()
        writer.execute("delete from orders")
        with writer.transaction():
            writer.execute("insert into orders values (1000, 6, 0)")
            last = writer.execute("select xmin::text::bigint from orders where id = 1000").fetchone()
    assert first is not None and last is not None and last[0] - first[0] < 250


def test_an_index_of_the_parents_key_is_used_for_each_row(captured: Captured) -> None:
    # Mutant: keys compared as texts, which no index helps.
    made(captured)
    captured.run("insert into orders select g, 6, 0 from generate_series(1, 1000) g", "analyze orders")
    with captured.writer() as writer:
        writer.execute("insert into items select g, g, 0 from generate_series(1, 300) g")
        writer.execute("update items set order_id = order_id + 1")
        writer.execute("select pg_stat_force_next_flush()")
        scans = writer.execute(
            "select seq_tup_read from pg_stat_user_tables where relname = 'orders'"
        ).fetchone()
    assert scans is not None and scans[0] < 10_000
    owners_match(captured)


REFUSED = (
    ({"merchant": {"parent": "public.lost", "on": "order_id"}}, (), "is not captured in this source"),
    ({"merchant": {"parent": "public.orders", "on": "lost"}}, (), 'column "lost" does not exist'),
    (BY_PARENT, ("drop index items_order_id_idx",), "CREATE INDEX CONCURRENTLY"),
    (BY_PARENT, ("alter table items drop constraint items_order_id_fkey",), "add one"),
    (
        BY_PARENT,
        (
            "alter table items drop constraint items_order_id_fkey,"
            " add constraint f foreign key (order_id) references orders deferrable",
        ),
        "is deferrable",
    ),
    ({**BY_PARENT, "capture": "statement"}, (), "nor capture by statement"),
)


@pytest.mark.parametrize(("options", "changes", "reason"), REFUSED)
def test_lookups_that_cannot_hold_are_refused(
    captured: Captured, options: dict[str, object], changes: Sequence[str], reason: str
) -> None:
    captured.run(PARENT, CHILD.format("cascade"), INDEX, *changes)
    with pytest.raises(ConfigurationError, match=reason):
        captured.install_tables(orders={}, items=options)


def test_chains_are_refused(captured: Captured) -> None:
    captured.run(
        PARENT, CHILD.format("cascade"), INDEX,
        "create table parts (id integer primary key, item_id integer references items)", "create index on parts (item_id)",
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="no chains"):
        captured.install_tables(
            orders={}, items=BY_PARENT, parts={"merchant": {"parent": "public.items", "on": "item_id"}}
        )
