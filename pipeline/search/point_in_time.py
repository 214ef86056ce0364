"""All documents that answer a query, as of one moment, page by page and in no order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from elasticsearch import Elasticsearch

from pipeline.errors import SinkUnavailableError
from pipeline.search.client import translated

_KEEP_ALIVE = "5m"  # from one page to the next
Hit = Mapping[str, Any]


def pages(
    client: Elasticsearch,
    index: str,
    query: Mapping[str, Any],
    *,
    size: int,
    routing: str | None = None,
    source: bool | Mapping[str, Sequence[str]] = True,
) -> Iterator[list[Hit]]:
    """Pages of at most `size` hits, each with ``_id``, ``_version``, ``_routing`` and what `source` names of the document.

    SinkUnavailableError rather than a partial answer.
    """
    with translated("opening a scan"):
        opened = client.open_point_in_time(index=index, keep_alive=_KEEP_ALIVE, routing=routing)
    pit = _PointInTime(client, opened["id"])
    try:
        yield from pit.pages(query, size, source)
    finally:
        pit.close()


class _PointInTime:
    def __init__(self, client: Elasticsearch, identifier: str) -> None:
        self._client = client
        self._id = identifier

    def pages(
        self, query: Mapping[str, Any], size: int, source: bool | Mapping[str, Sequence[str]]
    ) -> Iterator[list[Hit]]:
        after: list[Any] | None = None
        while hits := self._page(query, size, source, after):
            yield hits
            after = hits[-1]["sort"]

    def _page(
        self,
        query: Mapping[str, Any],
        size: int,
        source: bool | Mapping[str, Sequence[str]],
        after: list[Any] | None,
    ) -> list[Hit]:
        with translated("scanning"):
            answer = self._client.search(
                pit={"id": self._id, "keep_alive": _KEEP_ALIVE},
                query=query,
                sort=[{"_shard_doc": "asc"}],
                search_after=after,
                size=size,
                source=source,
                version=True,
                track_total_hits=False,
                allow_partial_search_results=False,
            ).body
        if answer["timed_out"] or answer["_shards"]["failed"]:
            raise SinkUnavailableError("Elasticsearch, scanning: a shard did not answer")
        self._id = answer["pit_id"]
        hits: list[Hit] = answer["hits"]["hits"]
        return hits

    def close(self) -> None:
        with translated("closing a scan"):
            self._client.close_point_in_time(id=self._id)
