"""What somebody did to a sink by hand is named, key by key, while traffic goes on; nothing else is."""

import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from elasticsearch import Elasticsearch

from pipeline.search.naming import document_id, read_alias, write_alias
from tests.acceptance.deployment import Deployment
from tests.acceptance.running import busy_deployment, findings, insert_steps, touch_steps
from tests.conftest import Stack, _run_in_warehouse

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def busy(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with busy_deployment(stack, tmp_path_factory.mktemp("names"), "names", seed=7) as one:
        yield one


@pytest.fixture
def search(busy: Deployment) -> Iterator[Elasticsearch]:
    with Elasticsearch(busy.variables["ELASTICSEARCH_URL"]) as client:
        yield client


class Hand:
    """Somebody with the rights of an administrator, at the steps of one merchant in both sinks."""

    def __init__(self, deployment: Deployment, search: Elasticsearch, merchant: str) -> None:
        self._deployment = deployment
        self._search = search
        self._merchant = merchant
        self._table = f'"{deployment.name}"."step"'

    def change_document(self, key: str, **cdc: bool) -> None:
        """Another note, at the document's own version; `cdc` changes what the pipeline wrote about it."""
        found = self._search.get(id=self._id(key), routing=self._merchant, index=self._read)
        source = found["_source"] | {"note": "by hand"}
        source["cdc"] |= cdc
        self._put(key, source, found["_version"])

    def add_document(self, key: str, like: str) -> None:
        """A document of a row that never was."""
        found = self._search.get(id=self._id(like), routing=self._merchant, index=self._read)
        source = found["_source"] | {"id": int(key)}
        source["cdc"] |= {"key": key}
        self._put(key, source, found["_version"])

    def delete_document(self, key: str) -> None:
        """Gone without a tombstone."""
        self._search.delete(
            index=write_alias(self._deployment.name, "step"), id=self._id(key), routing=self._merchant
        )

    def in_warehouse(self, statement: str, key: str) -> None:
        """Run a statement on the warehouse's row with this key; {row} is its table and condition."""
        row = f"\"_merchant\" = '{self._merchant}' AND \"_key\" = '{key}'"
        _run_in_warehouse(
            self._deployment.variables["REDSHIFT_URL"], statement.format(table=self._table, row=row)
        )

    def add_row(self, key: str, like: str) -> None:
        """A row that never was."""
        columns = (
            'merchant_id, step, amount, note, "at", "_merchant", "_version", "_deleted", "_flags", "_source"'
        )
        self.in_warehouse(
            f"INSERT INTO {{table}} (id, \"_key\", {columns}) SELECT {int(key)}, '{int(key)}', {columns}"
            " FROM {table} WHERE {row}",
            like,
        )

    @property
    def _read(self) -> str:
        return read_alias(self._deployment.name, "step")

    def _id(self, key: str) -> str:
        return document_id(self._merchant, "step", key)

    def _put(self, key: str, source: dict[str, Any], version: int) -> None:
        self._search.index(
            index=write_alias(self._deployment.name, "step"),
            id=self._id(key),
            routing=self._merchant,
            document=source,
            version=version,
            version_type="external_gte",
        )


def at_rest(deployment: Deployment, merchant: str, count: int) -> list[str]:
    """The keys of a new merchant's rows, once both sinks have them; its name tells it from the writer's merchants."""
    keys = insert_steps(deployment, "shard0", merchant, count)
    report = deployment.verify("--merchant", merchant)
    assert report["ok"], report
    return keys


# Mutants: a row is never "changed since" (`changed` always false); a document is not compared column by column
# (`_finding` does not look at digests); the shortlist is empty; phantoms are not looked for.
def test_exactly_what_was_done_by_hand_is_named_under_traffic(
    busy: Deployment, search: Elasticsearch
) -> None:
    changed, deleted, untouched, updated, removed = at_rest(busy, "quiet", 5)
    hand = Hand(busy, search, "quiet")
    hand.change_document(changed)
    hand.delete_document(deleted)
    hand.add_document("900001", like=untouched)
    hand.in_warehouse("UPDATE {table} SET amount = amount + 1 WHERE {row}", updated)
    hand.in_warehouse("DELETE FROM {table} WHERE {row}", removed)
    hand.add_row("900002", like=untouched)

    report = busy.verify("--source", "shard0")
    assert not report["ok"]
    assert findings(report) == {
        ("step", "search", "different", "quiet", changed),
        ("step", "search", "lost", "quiet", deleted),
        ("step", "search", "phantom", "quiet", "900001"),
        ("step", "warehouse", "different", "quiet", updated),
        ("step", "warehouse", "lost", "quiet", removed),
        ("step", "warehouse", "phantom", "quiet", "900002"),
    }
    told = busy.run("verify", "--merchant", "quiet", "--type", "step", expect=1).stdout
    assert f"different in search, step: merchant quiet key {changed}\n" in told
    assert f"lost in warehouse, step: merchant quiet key {removed}\n" in told
    assert "phantom in warehouse, step: merchant quiet key 900002\n" in told
    for elsewhere in (("--merchant", "1"), ("--source", "shard0", "--type", "note")):
        assert busy.verify(*elsewhere)["ok"], elsewhere

    touch_steps(busy, "shard0", "quiet")
    hand.delete_document("900001")
    hand.in_warehouse("DELETE FROM {table} WHERE {row}", "900002")
    report = busy.verify("--source", "shard0")
    assert report["ok"], report


# Mutant: a tombstone counts as equal whether or not its row lives.
@pytest.mark.soak
def test_a_tombstone_of_a_living_row_is_a_loss(busy: Deployment, search: Elasticsearch) -> None:
    first, second, _ = at_rest(busy, "buried", 3)
    hand = Hand(busy, search, "buried")
    hand.change_document(first, deleted=True)
    hand.in_warehouse('UPDATE {table} SET "_deleted" = true WHERE {row}', second)
    report = busy.verify("--source", "shard0", "--merchant", "buried")
    assert not report["ok"]
    assert findings(report) == {
        ("step", "search", "lost", "buried", first),
        ("step", "warehouse", "lost", "buried", second),
    }
    touch_steps(busy, "shard0", "buried")
    assert busy.verify("--source", "shard0", "--merchant", "buried")["ok"]


@pytest.mark.soak
def test_what_has_not_arrived_in_time_is_no_verdict(busy: Deployment) -> None:
    busy.supervisor.signal("worker_search", signal.SIGSTOP)
    try:
        insert_steps(busy, "shard0", "late", 1)
        done = busy.run("verify", "--json", "--timeout", "2", expect=1)
    finally:
        busy.supervisor.signal("worker_search", signal.SIGCONT)
    assert done.stdout == ""
    assert "error: not settled: search has not accepted everything" in done.stderr
    assert "Traceback" not in done.stderr


# Mutant: S is taken without waiting for transactions that are older than the mark; what they commit later would be
# taken for changes that the snapshot must show.
@pytest.mark.soak
def test_a_transaction_older_than_the_mark_is_waited_for(busy: Deployment) -> None:
    with psycopg.connect(busy.writer_url("shard0")) as session:
        session.execute("INSERT INTO steps (merchant_id, step, amount) VALUES ('slow', 1, 1)")
        done = busy.run("verify", "--source", "shard0", "--timeout", "1", expect=1)
        assert "not settled: shard0: a transaction older than the snapshot still runs" in done.stderr
    assert busy.verify("--source", "shard0", "--merchant", "slow")["ok"]
