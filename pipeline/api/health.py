"""Whether this process lives, and whether it can answer."""

from __future__ import annotations

from elasticsearch import Elasticsearch
from fastapi import APIRouter

from pipeline.api.rows import document_types
from pipeline.errors import SinkUnavailableError
from pipeline.search.client import translated
from pipeline.search.naming import read_alias
from pipeline.settings import Settings


def routes(client: Elasticsearch, settings: Settings) -> APIRouter:
    """``/healthz`` asks nobody; ``/readyz`` is 503 until every type can be read."""
    router = APIRouter()
    aliases = [read_alias(settings.deployment, type_) for type_ in sorted(document_types(settings))]

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/readyz")
    def readyz() -> dict[str, str]:
        """Elasticsearch answers and has an index for every type."""
        with translated("looking for indices"):
            found = client.indices.get_alias(name=aliases, ignore_unavailable=True, filter_path="*.aliases")
        names = {alias for index in found.values() for alias in index["aliases"]}
        if missing := set(aliases) - names:
            raise SinkUnavailableError(f"no index behind {', '.join(sorted(missing))}")
        return {"status": "ready"}

    return router
