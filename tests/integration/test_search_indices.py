from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from pipeline.domain.table import Column
from pipeline.errors import ConfigurationError
from pipeline.search.client import connect
from pipeline.search.mapping import check_indices, ensure_indices
from pipeline.search.naming import first_index, read_alias, write_alias
from pipeline.settings import Settings
from tests.fakes.search import COLUMNS, TABLES, settings_for, table

pytestmark = pytest.mark.integration


@pytest.fixture
def client(elasticsearch_url: str) -> Iterator[Elasticsearch]:
    made = connect(elasticsearch_url)
    yield made
    made.close()


@pytest.fixture
def settings(elasticsearch_url: str, index_prefix: str, tmp_path: Path) -> Settings:
    return settings_for(tmp_path, index_prefix, elasticsearch_url)


def test_indices_are_made_once_and_then_left_alone(client: Elasticsearch, settings: Settings) -> None:
    names = [first_index(settings.deployment, type_) for type_ in ("payment", "refund")]
    assert ensure_indices(client, settings, TABLES) == names
    assert ensure_indices(client, settings, TABLES) == []
    assert check_indices(client, settings, TABLES) == []
    aliases = client.indices.get_alias(index=names[0])[names[0]]["aliases"]
    assert aliases == {
        read_alias(settings.deployment, "payment"): {},
        write_alias(settings.deployment, "payment"): {"is_write_index": True},
    }


def test_shards_of_one_table_share_an_index(client: Elasticsearch, settings: Settings) -> None:
    assert len(ensure_indices(client, settings, [table("payment"), table("payment")])) == 1


def test_releases_that_start_together_do_not_stumble(client: Elasticsearch, settings: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: ensure_indices(client, settings, TABLES), range(4)))
    assert sum(map(len, made)) == 2
    assert check_indices(client, settings, TABLES) == []


def test_new_columns_become_fields(client: Elasticsearch, settings: Settings) -> None:
    ensure_indices(client, settings, TABLES)
    wider = [table("payment", (*COLUMNS, Column("fee", "numeric")))]
    [problem] = check_indices(client, settings, wider)
    assert '"fee" is missing' in problem
    assert ensure_indices(client, settings, wider) == [first_index(settings.deployment, "payment")]
    assert check_indices(client, settings, wider) == []


def test_a_field_that_is_mapped_otherwise_is_named(client: Elasticsearch, settings: Settings) -> None:
    ensure_indices(client, settings, TABLES)
    changed = [table("payment", (Column("id", "text"), *COLUMNS[1:], Column("fee", "numeric")))]
    with pytest.raises(ConfigurationError) as caught:
        ensure_indices(client, settings, changed)
    assert 'field "id" is mapped as' in str(caught.value)
    assert 'field "id" is mapped as' in check_indices(client, settings, changed)[0]


def test_what_somebody_changed_by_hand_is_found(client: Elasticsearch, settings: Settings) -> None:
    assert len(check_indices(client, settings, TABLES)) == 2
    ensure_indices(client, settings, TABLES)
    payment, refund = (first_index(settings.deployment, type_) for type_ in ("payment", "refund"))
    client.indices.delete_alias(index=payment, name=read_alias(settings.deployment, "payment"))
    client.indices.put_alias(
        index=payment, name=write_alias(settings.deployment, "payment"), is_write_index=False
    )
    client.indices.put_settings(
        index=refund, settings={"translog.durability": "async", "index.blocks.write": True}
    )
    found = check_indices(client, settings, TABLES)
    assert [problem.split(":")[0] for problem in found] == [payment, payment, refund, refund]
    for word in ("-read", "is_write_index", "durability", "blocks.write"):
        assert any(word in problem for problem in found), word


def test_an_index_without_its_aliases_is_not_taken_over(client: Elasticsearch, settings: Settings) -> None:
    client.indices.create(
        index=first_index(settings.deployment, "payment"), settings={"number_of_replicas": 0}
    )
    with pytest.raises(ConfigurationError, match="is missing"):
        ensure_indices(client, settings, TABLES)
