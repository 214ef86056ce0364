"""Domain events: written by whoever may, in the application's transaction, in the merchant's order."""

import json

import psycopg
import pytest

from pipeline.consumer import Turn
from pipeline.search.documents import newest
from pipeline.warehouse.rows import fold
from tests.fakes.turns import lane
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

TABLE = "create table t (id bigint primary key, merchant_id bigint, v integer)"


def installed(captured: Captured, *emitters: str) -> None:
    captured.install_source(captured.choose({"t": {}}, emitters=emitters))


def test_an_event_takes_its_place_among_the_changes_of_its_transaction(captured: Captured) -> None:
    captured.run(TABLE)
    installed(captured, "app")
    with captured.writer() as writer:
        with writer.transaction():
            writer.execute("insert into t values (1, 6, 1)")
            writer.execute("""select cdc.emit('6', 'payment.settled', '{"id": 1, "sum": 1.10}')""")
            writer.execute("update t set v = 2")
        with pytest.raises(ZeroDivisionError), writer.transaction():
            writer.execute("select cdc.emit('6', 'never', '{}')")
            raise ZeroDivisionError

    events = captured.drain()

    assert [(event.op, event.type, event.key) for event in events] == [
        ("c", "t", {"id": 1}),
        ("event", "payment.settled", {}),
        ("u", "t", {"id": 1}),
    ]
    assert {event.txid for event in events} == {events[0].txid}
    assert events[0].version < events[1].version < events[2].version
    assert json.loads(bytes(events[1].after)) == {"id": 1, "sum": 1.10}


def test_search_and_warehouse_take_domain_events_for_no_rows(captured: Captured) -> None:
    # Mutant: without the look at `is_row` each sink stores, or sets aside, a row of type "t" with an empty key.
    captured.run(TABLE)
    installed(captured, "app")
    captured.run("insert into t values (1, 6, 1)", "select cdc.emit('6', 't', '{\"id\": 9}')")
    head = lane(*captured.drain())
    assert [change.position for change in newest([head], {})] == [0]
    assert {type_: [pick.index for pick in picks] for type_, picks in fold(Turn("x", 1, [head])).items()} == {
        "t": [0]
    }


@pytest.mark.parametrize(
    "call",
    [
        "cdc.emit('_shop', 'x', '{}')",
        "cdc.emit(null, 'x', '{}')",
        "cdc.emit(e'6\\n', 'x', '{}')",
        "cdc.emit('6', 'x\"', '{}')",
        "cdc.emit('6', null, '{}')",
        "cdc.emit('6', 'x', null)",
        "cdc.emit('6', 'x', to_jsonb(repeat('x', 900000)))",
        "cdc.emit('6', 'x', (repeat('{\"a\":', 102) || '1' || repeat('}', 102))::jsonb)",
    ],
)
def test_what_cannot_be_an_event_is_refused_to_its_writer(captured: Captured, call: str) -> None:
    captured.run(TABLE)
    installed(captured, "app")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"cdc\.emit"):
        captured.run(f"select {call}")


def test_a_payload_may_have_many_values_and_a_hundred_levels(captured: Captured) -> None:
    # Mutant: levels taken for brackets.
    captured.run(TABLE)
    installed(captured, "app")
    captured.run(
        "select cdc.emit('6', 'x', jsonb_agg(jsonb_build_array(g))) from generate_series(1, 500) g",
        "select cdc.emit('6', 'x', (repeat('[', 100) || repeat(']', 100))::jsonb)",
    )
    assert [event.op for event in captured.drain()] == ["event", "event"]


def test_only_named_roles_may_emit_and_only_as_long_as_they_are_named(captured: Captured) -> None:
    # Mutant: without the REVOKE every role may call it, as every new function; a role that was named once, for ever.
    captured.run(TABLE)
    for emitters, allowed in (((), False), (("app",), True), ((), False)):
        installed(captured, *emitters)
        if allowed:
            captured.run("select cdc.emit('6', 'x', '{}')")
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                captured.run("select cdc.emit('6', 'x', '{}')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            captured.run("select * from cdc.identity")
        with psycopg.connect(captured.source.admin_url) as admin:
            public = admin.execute(
                "select has_function_privilege('public', 'cdc.emit(text, text, jsonb)', 'execute')"
            ).fetchone()
        assert public == (False,)
