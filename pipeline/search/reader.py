"""Reading everything, tombstones too, as `pipeline verify` does: straight from the stored documents."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from elasticsearch import Elasticsearch

from pipeline.errors import SinkUnavailableError
from pipeline.search.client import translated
from pipeline.search.naming import key_of_id, read_alias, require_merchant
from pipeline.search.refresh import refresh_indices

_PAGE = 2000
_KEEP_ALIVE = "5m"


@dataclass(frozen=True, slots=True)
class Document:
    """One stored document: ``key`` is the encoded key, ``row`` the columns as stored (a tombstone has only its key).

    ``partition`` and ``offset`` say where its event stood. A document that somebody else wrote, without ``cdc``, has
    version 0, -1 for both, and no source.
    """

    merchant: str
    key: str
    version: int
    deleted: bool
    row: dict[str, Any]
    partition: int
    offset: int
    source: str


def refresh(client: Elasticsearch, deployment: str, types: Collection[str]) -> None:
    """Make everything written to these types so far visible to reads that start after this call."""
    if types:
        refresh_indices(client, [read_alias(deployment, type_) for type_ in types])


def scan(
    client: Elasticsearch, deployment: str, type_: str, merchant: str | None = None
) -> Iterator[Document]:
    """All documents of a type, or of one merchant in it, as of one moment after a refresh; in no order.

    SinkUnavailableError rather than a partial answer.
    """
    refresh(client, deployment, [type_])
    routing = None if merchant is None else require_merchant(merchant)
    with translated("opening a scan"):
        opened = client.open_point_in_time(
            index=read_alias(deployment, type_), keep_alive=_KEEP_ALIVE, routing=routing
        )
    query = {"match_all": {}} if merchant is None else {"term": {"cdc.merchant": merchant}}
    pit = _PointInTime(client, opened["id"])
    try:
        for hit in pit.hits(query):
            yield _document(hit)
    finally:
        pit.close()


class _PointInTime:
    def __init__(self, client: Elasticsearch, identifier: str) -> None:
        self._client = client
        self._id = identifier

    def hits(self, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        after: list[Any] | None = None
        while hits := self._page(query, after):
            yield from hits
            after = hits[-1]["sort"]

    def _page(self, query: Mapping[str, Any], after: list[Any] | None) -> list[dict[str, Any]]:
        with translated("scanning"):
            answer = self._client.search(
                pit={"id": self._id, "keep_alive": _KEEP_ALIVE},
                query=query,
                sort=[{"_shard_doc": "asc"}],
                search_after=after,
                size=_PAGE,
                track_total_hits=False,
                allow_partial_search_results=False,
            ).body
        if answer["timed_out"] or answer["_shards"]["failed"]:
            raise SinkUnavailableError("Elasticsearch, scanning: a shard did not answer")
        self._id = answer["pit_id"]
        hits: list[dict[str, Any]] = answer["hits"]["hits"]
        return hits

    def close(self) -> None:
        with translated("closing a scan"):
            self._client.close_point_in_time(id=self._id)


def _document(hit: Mapping[str, Any]) -> Document:
    row = dict(hit["_source"])
    cdc = row.pop("cdc", {})
    return Document(
        cdc.get("merchant", hit.get("_routing", "")),
        cdc.get("key", key_of_id(hit["_id"])),
        int(cdc.get("ver", 0)),
        bool(cdc.get("deleted", False)),
        row,
        cdc.get("partition", -1),
        cdc.get("offset", -1),
        cdc.get("src", ""),
    )
