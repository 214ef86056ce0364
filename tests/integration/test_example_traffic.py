"""The example company on a real PostgreSQL: what the executor says it committed is what the database saw."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from devstack.postgres import drop_database
from example.schema import create
from example.seed import Size, seed
from example.tables import SOURCES, TABLES, TABLES_OF
from example.traffic import Busy, Load, run
from tests.conftest import unique

pytestmark = pytest.mark.integration

AUDIT = """
    create table audit (relation text, kind text);
    create function audit() returns trigger language plpgsql as $$
    begin
        insert into audit values (tg_table_name, lower(tg_op));
        return null;
    end $$;
"""


@pytest.fixture
def company(postgres_url: str, variables: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The four databases under names of their own, with a few rows in them."""
    prefix = unique("example") + "_"
    urls = create(postgres_url, variables["EXAMPLE_WRITER_URL"], prefix)
    seed(
        urls,
        Size(
            merchants=20,
            customers=200,
            transactions=600,
            refunds=100,
            disputes=50,
            payouts=60,
            applications=40,
        ),
    )
    yield urls
    for source in SOURCES:
        drop_database(postgres_url, prefix + source)


def _audited(urls: Mapping[str, str]) -> None:
    for source, url in urls.items():
        with psycopg.connect(url) as session:
            session.execute(AUDIT)
            for table in TABLES_OF[source]:
                trigger = sql.SQL(
                    "create trigger audit after insert or update or delete on {} for each row execute function audit()"
                )
                session.execute(trigger.format(sql.Identifier(table)))


def _audit(urls: Mapping[str, str]) -> Counter[tuple[str, str, str]]:
    seen: Counter[tuple[str, str, str]] = Counter()
    for source, url in urls.items():
        with psycopg.connect(url) as session:
            for table, kind, count in session.execute(
                "select relation, kind, count(*) from audit group by 1, 2"
            ):
                seen[source, table, kind] = count
    return seen


def _load(probe: Path | None = None, seconds: float = 3.0) -> Load:
    return Load(rate=1_500, merchants=20, seconds=seconds, seed=7, connections=3, probe=probe, probe_every=10)


# Mutant: `Tally.add` counts what was rolled back, too (`Transaction.events` without `surviving`).
def test_counts_are_exact_and_probed_rows_are_there(company: Mapping[str, str], tmp_path: Path) -> None:
    _audited(company)
    report = run(company, _load(tmp_path / "probe.jsonl"))
    assert report.missed == 0
    assert Counter(report.events) == _audit(company)
    assert report.rollbacks
    assert report.by_kind().keys() == {"insert", "update", "delete"}
    assert report.by_source().keys() == set(SOURCES)
    probes = [json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines()]
    assert probes
    assert [
        probe for probe in probes if _request(company, probe) != (probe["request_id"], probe["merchant"])
    ] == []


def _request(urls: Mapping[str, str], probe: dict[str, object]) -> tuple[object, object] | None:
    key = probe["key"]
    assert isinstance(key, dict)
    with psycopg.connect(urls[str(probe["source"])]) as session:
        condition = sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in key)
        query = sql.SQL("select request_id, merchant_id::text from {} where {}")
        text = query.format(sql.Identifier(str(probe["table"])), condition)
        return session.execute(text, list(key.values())).fetchone()


# Mutant: `known_rows` yields nothing of refunds.
def test_a_second_run_goes_on_from_what_the_first_left(company: Mapping[str, str]) -> None:
    first = run(company, _load(seconds=1))
    _audited(company)
    second = run(company, _load(seconds=1))
    assert first.missed == second.missed == 0
    assert Counter(second.events) == _audit(company)


def test_keys_of_other_writers_stay_apart(company: Mapping[str, str]) -> None:
    run(company, _load(seconds=0.5))
    with psycopg.connect(company["gateway0"]) as session:
        text = (
            "insert into customers (merchant_id, status, created_at) values (6, 'active', now()) returning id"
        )
        own = session.execute(text).fetchone()
        highest = session.execute("select max(id) from customers").fetchone()
    assert own == highest


def test_two_runs_at_once_are_refused(company: Mapping[str, str]) -> None:
    started, stop = threading.Event(), threading.Event()
    other = threading.Thread(
        target=run, args=(company, _load(seconds=60)), kwargs={"watch": lambda _: started.set(), "stop": stop}
    )
    other.start()
    try:
        assert started.wait(30)
        with pytest.raises(Busy):
            run(company, _load())
    finally:
        stop.set()
        other.join(30)
    assert not other.is_alive()


def test_merchant_6_has_rows_of_every_type_before_and_after(company: Mapping[str, str]) -> None:
    assert _tables_of_merchant_6(company) == set(TABLES)
    run(company, _load(seconds=1))
    assert _tables_of_merchant_6(company) == set(TABLES)


def _tables_of_merchant_6(urls: Mapping[str, str]) -> set[str]:
    found = set()
    for source in ("gateway0", "funding", "apply"):
        with psycopg.connect(urls[source]) as session:
            for table in TABLES_OF[source]:
                query = sql.SQL("select from {} where merchant_id = 6 limit 1").format(sql.Identifier(table))
                if session.execute(query).fetchone() is not None:
                    found.add(table)
    return found


def test_the_same_seed_makes_the_same_rows(company: Mapping[str, str], postgres_url: str) -> None:
    prefix = unique("example") + "_"
    twin = create(postgres_url, company["gateway0"], prefix)
    size = Size(
        merchants=20, customers=200, transactions=600, refunds=100, disputes=50, payouts=60, applications=40
    )
    try:
        seed(twin, size)
        for source in SOURCES:
            for table in TABLES_OF[source]:
                assert _checksum(twin[source], table) == _checksum(company[source], table)
    finally:
        for source in SOURCES:
            drop_database(postgres_url, prefix + source)


def _checksum(url: str, table: str) -> object:
    query = sql.SQL("select count(*), sum(hashtext(row::text)) from {} as row").format(sql.Identifier(table))
    with psycopg.connect(url) as session:
        return session.execute(query).fetchone()
