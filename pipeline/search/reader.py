"""Reading everything, tombstones too, as `pipeline verify` does: straight from the stored documents."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from elasticsearch import Elasticsearch

from pipeline.search.naming import key_of_id, read_alias, require_merchant
from pipeline.search.point_in_time import Hit, pages
from pipeline.search.refresh import refresh_indices

_PAGE = 2000


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
    query = {"match_all": {}} if merchant is None else {"term": {"cdc.merchant": merchant}}
    routing = None if merchant is None else require_merchant(merchant)
    for page in pages(client, read_alias(deployment, type_), query, size=_PAGE, routing=routing):
        yield from map(_document, page)


def _document(hit: Hit) -> Document:
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
