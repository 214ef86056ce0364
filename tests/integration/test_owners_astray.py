"""Parents that change hands unseen: once that is mended, what happens to their rows happens under the right merchant."""

from collections.abc import Callable

import psycopg
import pytest

from pipeline.capture import owners
from pipeline.capture.session import session
from pipeline.control import snapshots
from tests.integration.captured import NAME, Captured
from tests.integration.relaying import staged

pytestmark = pytest.mark.integration
ITEMS = {"merchant": {"parent": "public.orders", "on": "order_id"}}


@pytest.fixture
def shop(captured: Captured) -> Captured:
    """Two items of an order of merchant 6, both noted as his."""
    captured.run(
        "create table orders (id integer primary key, merchant_id integer, v integer)",
        "create table items (id integer primary key, order_id integer references orders, v integer)",
        "create index on items (order_id)",
    )
    captured.install_tables(orders={}, items=ITEMS)
    captured.run("insert into orders values (1, 6, 0)", "insert into items values (1, 1, 0), (2, 1, 0)")
    return captured


def change_hands_unseen(captured: Captured) -> None:
    with psycopg.connect(captured.source.admin_url, autocommit=True) as admin:
        admin.execute("set session_replication_role = replica")
        admin.execute("update orders set merchant_id = 7")


def told(captured: Captured) -> list[tuple[str, str, object]]:
    return [
        (event.op, event.merchant, event.key["id"]) for event in captured.drain() if event.type == "items"
    ]


CHANGES = ("update items set v = 1 where id = 1", "delete from items where id = 2")


def test_who_enables_capture_again_forgets_whose_rows_were(shop: Captured) -> None:
    # Mutant: kept, these changes go to merchant 6: the row that a snapshot gives to 7 stays there for ever.
    shop.drain()
    shop.disable("a drill")
    shop.run("update orders set merchant_id = 7")
    shop.enable_source(shop.choose({"orders": {}, "items": ITEMS}))
    shop.run(*CHANGES)
    assert told(shop) == [("u", "7", 1), ("d", "7", 2)]


def test_a_snapshot_forgets_whose_rows_were_before_it_reads(
    shop: Captured, kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # Mutant: as above; a change after the snapshot brings the row back to merchant 6, above the sweep.
    shop.drain()
    change_hands_unseen(shop)
    with staged(shop, kafka_bootstrap, kafka_topic(1)) as stage:
        stage.carry_out(snapshots.request(shop.database, NAME))
        assert {row.merchant for row in stage.rows()} == {"7"}
        shop.run(*CHANGES)
        stage.run_until(lambda: len(stage.changes()) == 2)
        assert [(event.op, event.merchant, event.key["id"]) for event in stage.changes()] == [
            ("u", "7", 1), ("d", "7", 2),
        ]  # fmt: skip


def test_forgetting_waits_for_nobody_and_leaves_nothing_older(shop: Captured) -> None:
    # Mutants: without SKIP LOCKED the relay stands while a writer does; without the second look its row keeps its owner.
    items = next(table for table in shop.tables if table.type == "items")
    with session(shop.source.url) as connection, shop.writer() as writer:
        with writer.transaction():
            writer.execute("update items set v = 1 where id = 1")
            since = owners.begin_forgetting(connection)
            shop.run("insert into items values (3, 1, 0)")
            connection.execute("set statement_timeout = '10s'")
            assert [owners.forget(connection, items, since) for _ in range(3)] == [1, 0, 0]
        assert [owners.forget(connection, items, since) for _ in range(2)] == [1, None]
        assert connection.execute("select count(*) from cdc.owners").fetchone() == (1,)
