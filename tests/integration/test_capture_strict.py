"""Tables with other triggers: the last event of a row always shows the row as it is."""

import pytest

from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

# Mutant of them all: the plain trigger, which captures the row as it was queued.
TABLE = "create table t (id integer primary key, merchant_id integer, v integer)"
FUNCTION = """
create function nested() returns trigger language plpgsql as $$ begin
  {} return null;
end $$
"""
TRIGGER = "create trigger {} after insert or update or delete on t for each row when (pg_trigger_depth() = 0) execute function nested()"


def state(captured: Captured) -> dict[tuple[str, object], object]:
    """What a sink holds after the events, newest version first or last: living rows by merchant and key."""
    newest = {}
    for event in sorted(captured.drain(), key=lambda event: event.version):
        newest[event.merchant, event.key["id"]] = event
    return {place: event.row()["v"] for place, event in newest.items() if not event.deleted}


def table(captured: Captured) -> dict[tuple[str, object], object]:
    with captured.writer() as writer:
        return {
            (str(merchant), key): v for key, merchant, v in writer.execute("select id, merchant_id, v from t")
        }


CASES = {
    "A: the same row": ("update t set v = v + 100 where id = new.id;", ("update t set v = 2",)),
    "C: another row of the same statement": (
        "if old.id = 1 then update t set v = v + 100 where id = 2; end if;",
        ("update t set v = v + 10",),
    ),
    "another merchant": (
        "if old.id = 1 then update t set merchant_id = 7 where id = 2; end if;",
        ("update t set v = v + 10", "update t set merchant_id = 8"),
    ),
    "a row that is gone": (
        "if old.id = 1 then delete from t where id = 2; end if;",
        ("update t set v = v + 10",),
    ),
    "a row that comes back": (
        "if tg_op = 'DELETE' then insert into t values (old.id, 9, 99); end if;",
        ("delete from t", "delete from t where id = 1"),
    ),
    "another key": (
        "if old.id = 1 then update t set id = 5 where id = 2; end if;",
        ("update t set v = v + 10",),
    ),
    "a key that is taken at once": (
        "if old.id = 2 then update t set id = 2 where id = 1; end if;",
        ("update t set id = id + 10 where id = 2",),
    ),
}


@pytest.mark.parametrize("name", ["aa", "zz"])
@pytest.mark.parametrize("case", CASES)
def test_the_sink_equals_the_table_whatever_other_triggers_do(
    captured: Captured, case: str, name: str
) -> None:
    nested, statements = CASES[case]
    captured.run(TABLE, FUNCTION.format(nested), TRIGGER.format(name))
    captured.install(t="merchant_id")
    assert captured.tables[0].strict
    captured.run("insert into t values (1, 6, 1), (2, 6, 2)", *statements)
    assert state(captured) == table(captured)


def test_a_cascade_within_the_table_is_followed(captured: Captured) -> None:
    captured.run(
        "create table t (id integer primary key, merchant_id integer, v integer references t on update cascade)"
    )
    captured.install(t="merchant_id")
    captured.run(
        "insert into t values (1, 6, 1), (2, 6, 1), (3, 6, 2)", "update t set id = id + 10 where id < 3"
    )
    assert state(captured) == table(captured)


def test_the_re_read_goes_by_the_key(captured: Captured) -> None:
    # Mutant: without enable_seqscan = off a plan made while the table was empty scans it for every row.
    captured.run(TABLE, FUNCTION.format(""), TRIGGER.format("zz"))
    captured.install(t="merchant_id")
    with captured.writer() as writer:
        for number in range(20):
            writer.execute("insert into t values (%s, 6, 0)", (number,))
        writer.execute("analyze t")
        writer.execute("insert into t select g, 6, 0 from generate_series(100, 400) g")
        writer.execute("select pg_stat_force_next_flush()")
        scans = writer.execute("select seq_scan from pg_stat_user_tables where relname = 't'").fetchone()
    assert scans is not None and scans[0] <= 2  # the primary key's making, and ANALYZE


def test_strict_capture_is_the_plain_one_where_nothing_interferes(captured: Captured) -> None:
    captured.run(TABLE, FUNCTION.format(""))
    seen = []
    for strict in (False, True):
        if strict:
            captured.run("truncate t", TRIGGER.format("zz"))
        captured.install(t="merchant_id")
        captured.run(
            "insert into t values (1, 6, 1), (2, 6, 2)", "update t set v = 5", "update t set merchant_id = 7 where id = 1",
            "update t set id = 3 where id = 2", "delete from t where id = 1",
        )  # fmt: skip
        seen.append(
            [(e.op, e.merchant, e.key["id"], bytes(e.before), bytes(e.after)) for e in captured.drain()]
        )
    assert seen[0] == seen[1]
