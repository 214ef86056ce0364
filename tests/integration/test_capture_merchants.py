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


@pytest.mark.parametrize(
    "change",
    [
        "alter table orders rename column merchant_id to owner",
        "alter table orders rename column id to number",
        "alter table items rename column order_id to of",
        "alter table items rename column v to w",
    ],
)
def test_a_table_that_is_altered_breaks_no_statement(captured: Captured, change: str) -> None:
    # Mutants: without the probes the lookup, and the fan-out, which write and so stand outside the EXCEPTION blocks, fail
    # the application.
    made(captured)
    captured.run(
        "insert into orders values (1, 6, 0), (2, 6, 0)", "insert into items values (1, 1, 0)", change
    )
    captured.run("insert into items values (2, 1, 0)")
    with captured.writer() as writer:
        merchant, key = (
            "owner" if "owner" in change else "merchant_id",
            "number" if "number" in change else "id",
        )
        writer.execute(f"update items set {'of' if ' of' in change else 'order_id'} = 2".encode())
        writer.execute(f"update orders set {merchant} = 7".encode())
        writer.execute(f"update orders set {key} = {key} + 10".encode())
        writer.execute(b"delete from items where id = 2")
        writer.execute(b"delete from orders")
    with session(captured.source.url) as connection:
        assert notices(connection) != []


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
