"""The parts of the example that need no service."""

import tomllib
from pathlib import Path

import click
import pytest

from example.check import CHECKED, Rows, differing
from example.operations import Delete, Insert, Release, RollbackTo, Savepoint, Transaction
from example.schema import urls
from example.tables import SOURCES, TABLES, TABLES_OF, weight
from example.traffic import share_out
from example.traffic_cli import writer_urls
from pipeline.settings import Configuration

REPO = Path(__file__).resolve().parents[2]
FIRST, SECOND = Insert("customers", ({"id": 1},)), Delete("transactions", ((2,),), refunds=3)


def test_what_a_savepoint_takes_back_does_not_count() -> None:
    operations = (FIRST, Savepoint("a"), SECOND, Savepoint("b"), FIRST, Release("b"), RollbackTo("a"), FIRST)
    assert Transaction("gateway0", operations).events() == {("customers", "insert"): 2}


def test_what_is_rolled_back_does_not_count() -> None:
    assert Transaction("gateway0", (FIRST, SECOND), commits=False).events().total() == 0


def test_refunds_that_go_by_cascade_count() -> None:
    expected = {("transactions", "delete"): 1, ("refunds", "delete"): 3}
    assert Transaction("gateway0", (SECOND,)).events() == expected


def test_lanes_share_no_merchant_and_weigh_about_the_same() -> None:
    shares = share_out(100, 4)
    assert sorted(merchant for share in shares for merchant in share) == list(range(1, 101))
    weights = [sum(map(weight, share)) for share in shares]
    assert max(weights) < 1.1 * min(weights)


def test_more_connections_than_merchants_are_refused() -> None:
    with pytest.raises(ValueError, match="merchants"):
        share_out(6, 7)


def test_a_sources_own_url_wins_over_the_shared_one() -> None:
    found = writer_urls(
        {"EXAMPLE_WRITER_URL": "postgresql://a@h/x", "APPLY_WRITER_URL": "postgresql://b@h/y"}
    )
    assert found == {**urls("postgresql://a@h/x"), "apply": "postgresql://b@h/y"}


def test_missing_urls_are_named() -> None:
    with pytest.raises(click.UsageError, match="FUNDING_WRITER_URL"):
        writer_urls({"APPLY_WRITER_URL": "postgresql://b@h/y"})


def test_differing_keys_are_missing_extra_or_unlike() -> None:
    here: Rows = {("6", "1"): ("a",), ("6", "2"): ("b",), ("6", "3"): (None,)}
    there: Rows = {("6", "1"): ("a",), ("6", "2"): ("B",), ("7", "4"): ("d",)}
    assert differing(here, there) == [("6", "2"), ("6", "3"), ("7", "4")]
    assert differing(here, dict(here)) == []


def test_every_table_is_captured_and_checked() -> None:
    configuration = Configuration.model_validate(tomllib.loads((REPO / "pipeline.toml").read_text()))
    assert set(configuration.sources) == set(SOURCES)
    for source, tables in TABLES_OF.items():
        captured = configuration.sources[source].tables
        assert {name.removeprefix("public."): table.type for name, table in captured.items()} == {
            name: TABLES[name].type for name in tables
        }
    checked = {(each.table, each.type, each.key, each.databases) for each in CHECKED}
    placed = {name: tuple(source for source in SOURCES if name in TABLES_OF[source]) for name in TABLES}
    assert checked == {(table.name, table.type, table.key, placed[table.name]) for table in TABLES.values()}
