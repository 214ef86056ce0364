"""Writers at random over parents and their rows: a sink that takes the newest version of each row ends as the tables are."""

import json
import random
import threading
from collections import Counter
from collections.abc import Sequence

import psycopg
import pytest

from pipeline.capture import rows
from pipeline.capture.queue import notices
from pipeline.capture.session import session
from pipeline.domain.event import Event
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration
WRITERS, ROUNDS, PARENTS, CHILDREN = 4, 80, 3, 20
MERCHANTS = ("5", "6", "7", "null", "-1")
CONFLICTS = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.UniqueViolation,
    psycopg.errors.ForeignKeyViolation,
)


def step(chance: random.Random, repeatable: bool) -> str:
    """One statement; in a transaction that may not see all rows of a parent, none by which one changes hands."""
    order, item, v = chance.randrange(PARENTS), chance.randrange(CHILDREN), chance.randrange(10**6)
    kinds = [
        f"insert into items values ({item}, {order}, {v}) on conflict (id) do update set v = excluded.v, order_id = excluded.order_id",
        f"insert into items values ({item}, {order}, {v}) on conflict do nothing",
        f"update items set v = {v} where id % 3 = {item % 3}",
        f"update items set order_id = {order} where id = {item}",
        f"update items set id = {item} where id = {chance.randrange(CHILDREN)}",
        f"delete from items where id = {item}",
        f"update orders set v = {v}",
    ]
    if not repeatable:
        merchant = chance.choice(MERCHANTS)
        kinds += [
            f"insert into orders values ({order}, {merchant}, {v}) on conflict do nothing",
            f"update orders set merchant_id = {merchant} where id = {order}",
            f"update orders set merchant_id = {merchant} where id % 2 = {order % 2}",
            f"update orders set id = {order}, merchant_id = {merchant} where id = {chance.randrange(PARENTS)}",
            f"delete from orders where id = {order}",
        ]
    return chance.choice(kinds)


def write(captured: Captured, seed: int, seen: Counter[str]) -> None:
    chance, pause = random.Random(seed), threading.Event()
    with captured.writer() as writer:
        for _ in range(ROUNDS):
            repeatable = chance.random() < 0.2
            level = "repeatable read" if repeatable else "read committed"
            try:
                with writer.transaction(force_rollback=chance.random() < 0.1):
                    writer.execute(f"set transaction isolation level {level}".encode())
                    for _ in range(chance.choice((1, 1, 2, 3))):
                        writer.execute(step(chance, repeatable).encode())
                        pause.wait(chance.random() * 0.01)  # so that transactions overlap
                seen["committed"] += 1
            except CONFLICTS as conflict:
                seen[type(conflict).__name__] += 1


def newest(events: Sequence[Event]) -> dict[tuple[str, object], object]:
    """What a sink has in the end: by merchant and key, each at its newest version, the deleted ones gone."""
    found: dict[tuple[str, object], Event] = {}
    for event in events:
        place = (event.merchant, event.key["id"])
        if event.type == "items" and (place not in found or found[place].version < event.version):
            found[place] = event
    return {place: event.row() for place, event in found.items() if not event.deleted}


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 30))])
@pytest.mark.parametrize("cascade", ["cascade", "set null"])
def test_whatever_parents_and_children_go_through_the_sink_ends_as_the_tables(
    captured: Captured, seed: int, cascade: str
) -> None:
    # Mutants: the owner kept when a row goes to another parent; a delete for the merchant of the parent as it is by then.
    # The locks have tests of their own.
    captured.run(
        "create table orders (id integer primary key, merchant_id integer, v integer)",
        f"create table items (id integer primary key, order_id integer references orders on delete {cascade} on update cascade,"
        " v integer)",
        "create index on items (order_id)",
    )
    captured.install_tables(orders={}, items={"merchant": {"parent": "public.orders", "on": "order_id"}})
    seen: Counter[str] = Counter()
    threads = [
        threading.Thread(target=write, args=(captured, seed * 100 + number, seen))
        for number in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = captured.drain()
    print(f"{len(events)} events, {dict(seen)}")
    assert seen["committed"] > WRITERS * ROUNDS / 3
    with session(captured.source.url) as connection:
        items = next(table for table in captured.tables if table.type == "items")
        living = {
            (row.merchant, one["id"]): one
            for row in rows.read_rows(connection, items)
            for one in [_decoded(row.image)]
        }
        assert notices(connection) == []
    assert newest(events) == living
    random.Random(seed).shuffle(events)
    assert newest(events) == living


def _decoded(image: str) -> dict[str, object]:
    decoded: dict[str, object] = json.loads(image)
    return decoded
