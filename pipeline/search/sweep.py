"""A sweep in the index: what its source wrote at a lower version becomes tombstones.

The documents are looked at one by one, because Elasticsearch cannot search by version: 20,000 to 90,000 a second
were measured on two shared cores, busy and idle; removing them is as fast as writing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

import structlog
from elasticsearch import Elasticsearch

from pipeline.consumer import SinkUnavailableError, SweepOrder
from pipeline.control import tables
from pipeline.control.database import ControlDatabase
from pipeline.errors import PermanentError
from pipeline.failpoints import passes
from pipeline.search.bulk import post
from pipeline.search.client import connect
from pipeline.search.documents import tombstone_lines
from pipeline.search.naming import key_of_id, read_alias, require_merchant
from pipeline.search.point_in_time import Hit, pages
from pipeline.search.refresh import refresh_indices
from pipeline.settings import Settings

_PAGE = 2000
_PROGRESS = 10.0  # seconds between two lines in the log


class SearchSweep:
    """Sweeps the indices of one deployment; a forked process needs its own."""

    def __init__(self, client: Elasticsearch, deployment: str, database: ControlDatabase) -> None:
        self._client = client
        self._deployment = deployment
        self._database = database

    def __call__(self, order: SweepOrder) -> int:
        """Carry out an order; returns how many documents it removed.

        A document that has a newer version by the time it is written stays as it is. SinkUnavailableError leaves it
        half done; the same call again does the rest.
        """
        index = read_alias(self._deployment, order.type)
        refresh_indices(self._client, [index])  # what is accepted but not visible yet would be missed
        key = self._key_columns(order)
        counts = Counter[str]()
        shown = time.monotonic()
        for page in _living(self._client, index, order, key):
            found = [hit for hit in page if order.removes(hit["_routing"], _key_of(hit), hit["_version"])]
            counts["seen"] += len(page)
            counts["removed"] += _remove(self._client, self._deployment, order, found, key)
            if time.monotonic() > shown + _PROGRESS:
                shown = time.monotonic()
                structlog.get_logger().info("sweeping search", sweep=order.id, **counts)
        refresh_indices(self._client, [index])
        return counts["removed"]

    def _key_columns(self, order: SweepOrder) -> Sequence[str]:
        """Those of the order's table; none when it is no longer captured."""
        for table in tables.load(self._database):
            if (table.source, table.type) == (order.source, order.type):
                return table.key
        return ()


def open_sweep(settings: Settings) -> SearchSweep:
    """A sweep with its own connections, as the settings say."""
    client = connect(settings.environment.elasticsearch_url.get_secret_value())
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    return SearchSweep(client, settings.deployment, database)


def _living(client: Elasticsearch, index: str, order: SweepOrder, key: Sequence[str]) -> Iterator[list[Hit]]:
    terms: list[dict[str, str | bool]] = [{"cdc.src": order.source}, {"cdc.deleted": False}]
    if order.merchant is not None:
        terms.append({"cdc.merchant": require_merchant(order.merchant)})
    query = {"bool": {"filter": [{"term": term} for term in terms]}}
    return pages(
        client, index, query, size=_PAGE, routing=order.merchant, source={"includes": ["cdc.key", *key]}
    )


def _key_of(hit: Hit) -> str:
    """The encoded key, which is longer than the document's id may be."""
    known: str | None = hit["_source"].get("cdc", {}).get("key")
    return key_of_id(hit["_id"]) if known is None else known


def _remove(
    client: Elasticsearch, deployment: str, order: SweepOrder, found: Sequence[Hit], key: Sequence[str]
) -> int:
    """Returns how many were removed; the others have been written or removed since they were seen."""
    if not found:
        return 0
    lines = [
        tombstone_lines(
            deployment,
            order,
            merchant=hit["_routing"],
            id_=hit["_id"],
            key=_key_of(hit),
            columns={name: hit["_source"][name] for name in key if name in hit["_source"]},
        )
        for hit in found
    ]
    kinds: Counter[str] = Counter()
    for said in post(client, b"".join(lines), len(lines)):
        if said.kind == "unavailable":
            raise SinkUnavailableError(f"Elasticsearch, sweeping: {said.reason}")
        if said.kind not in ("applied", "stale"):
            raise PermanentError(f"Elasticsearch, sweeping: {said.reason}")
        kinds[said.kind] += 1
    passes("search.swept")
    return kinds["applied"]
