"""What is excluded or rewritten never leaves the database in clear: not in changes, not in snapshots, not as a key."""

import hashlib
import hmac

import psycopg
import pytest

from pipeline.capture import rows
from pipeline.capture.queue import Queue
from pipeline.capture.session import session
from pipeline.errors import ConfigurationError
from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

CARD, SECRET = "4111111111111111", "planted-secret-7261"
RULES = {
    "exclude": ["token"],
    "columns": {
        "card": "last4",
        "ssn": "hash",
        "note": "mask",
        "short": "last4",
        "day": "hash",
        "amount": "mask",
    },
}
TABLE = (
    "create table t (id integer primary key, merchant_id integer, token text, card text, ssn text, note text,"
    " short text, day date, amount numeric, kept text)"
)
ROW = f"'{SECRET}', '{CARD}', '{SECRET}', '{SECRET}', '1234567', '2026-01-02', 7261.5, 'kept'"


def made(captured: Captured, **options: object) -> None:
    captured.run(TABLE)
    captured.install_tables(t={**RULES, **options})


def key_of(captured: Captured) -> bytes:
    with session(captured.source.url) as connection:
        row = connection.execute("select value from cdc.settings where name = 'hash_key'").fetchone()
    assert row is not None
    return bytes(row[0])


def hashed(captured: Captured, text: str) -> str:
    return hmac.new(key_of(captured), text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize("capture", ["row", "statement"])
def test_no_image_has_what_is_hidden(captured: Captured, capture: str) -> None:
    # Mutant: a rule applied to `after` alone shows the value in `before`; one left out shows it everywhere.
    made(captured, capture=capture)
    captured.run(
        f"insert into t values (1, 6, {ROW})",
        "update t set kept = 'more'",
        "update t set merchant_id = 7",
        "update t set id = 2",
        "delete from t",
        f"insert into t values (3, 6, {ROW})",
    )
    with session(captured.source.url) as connection:
        queue = Queue(connection)
        queue.tick()
        batch = queue.next_batch()
        assert batch is not None
        raw = repr(list(queue.events(batch)))
        snapshot = repr(rows.read_chunk(connection, captured.tables[0], None).rows)
    events = captured.drain()

    assert len(events) == 8
    for text in (raw, snapshot, repr(events)):
        assert not any(
            hidden in text for hidden in (CARD, CARD[:-4], SECRET, "7261.5", "2026-01-02", "1234567")
        )
    assert events[0].row() == {
        "id": 1,
        "merchant_id": 6,
        "card": "***1111",
        "ssn": hashed(captured, SECRET),
        "note": "***",
        "short": "***",
        "day": hashed(captured, "2026-01-02"),
        "amount": "***",
        "kept": "kept",
    }
    assert hashed(captured, SECRET) in snapshot


def test_nulls_stay_nulls_and_the_key_stays_the_same(captured: Captured) -> None:
    made(captured)
    before = key_of(captured)
    captured.install_tables(t=RULES)
    assert key_of(captured) == before
    captured.run("insert into t (id, merchant_id) values (1, 6)")
    assert set(captured.drain()[0].row().values()) == {1, 6, None}


def test_nobody_but_the_triggers_owner_reads_the_key_or_hashes(captured: Captured) -> None:
    made(captured)
    captured.install_source(captured.choose({"t": RULES}, emitters=["app"]))  # app may use the schema
    for query in ("select value from cdc.settings", "select cdc.hash('4111111111111111')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            captured.run(query)


def test_without_its_key_nothing_is_shown_and_nothing_breaks(captured: Captured) -> None:
    # Mutant: a hash that falls back to the value, or to NULL, when the key is gone.
    made(captured)
    with session(captured.source.url) as connection:
        connection.execute("delete from cdc.settings")
    captured.run(f"insert into t values (1, 6, {ROW})")
    with session(captured.source.url) as connection:
        queue = Queue(connection)
        queue.tick()
        batch = queue.next_batch()
        assert batch is not None
        (event,) = queue.events(batch)
    assert (event.op, event.key, event.merchant, event.after, event.before) == (
        "c",
        '{"id":1}',
        "6",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"exclude": ["id"]}, 'column "id" holds the primary key and cannot be excluded or rewritten'),
        (
            {"columns": {"id": "hash"}},
            'column "id" holds the primary key and cannot be excluded or rewritten',
        ),
        ({"columns": {"merchant_id": "mask"}}, 'column "merchant_id" holds the merchant'),
        ({"exclude": ["lost"]}, 'column "lost" is excluded or rewritten and does not exist'),
        ({"exclude": ["card"], "columns": {"card": "mask"}}, "both excluded and rewritten"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(
    captured: Captured, options: dict[str, object], reason: str
) -> None:
    captured.run(TABLE)
    with pytest.raises(ConfigurationError, match=reason):
        captured.install_tables(t=options)
