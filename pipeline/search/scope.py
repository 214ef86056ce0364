"""Reading as one merchant: the merchant belongs to the handle, not to the query, so that no query can leave it out."""

from __future__ import annotations

from typing import Any

from elasticsearch import Elasticsearch

from pipeline.errors import SinkUnavailableError
from pipeline.search.client import translated
from pipeline.search.naming import read_alias, require_merchant


class SearchScope:
    """The living rows of one merchant. ValueError when `merchant` is no merchant id."""

    def __init__(self, client: Elasticsearch, deployment: str, merchant: str) -> None:
        self._client = client
        self._deployment = deployment
        self._merchant = require_merchant(merchant)

    def count(self, type_: str) -> int:
        """How many rows of a type the merchant has, exactly; SinkUnavailableError rather than a partial answer."""
        index = read_alias(self._deployment, type_)
        with translated("counting"):
            answer = self._client.count(index=index, routing=self._merchant, query=self._filter()).body
        if answer["_shards"]["failed"]:
            raise SinkUnavailableError("Elasticsearch, counting: a shard did not answer")
        return int(answer["count"])

    def _filter(self) -> dict[str, Any]:
        # Routing alone is no filter: merchants share shards.
        terms = ({"cdc.merchant": self._merchant}, {"cdc.deleted": False})
        return {"bool": {"filter": [{"term": term} for term in terms]}}
