"""A merchant's rows: how many there are."""

from __future__ import annotations

from http import HTTPStatus

from elasticsearch import Elasticsearch
from fastapi import APIRouter
from pydantic import BaseModel

from pipeline.api.errors import RequestError
from pipeline.domain.routing import is_merchant
from pipeline.search.scope import SearchScope
from pipeline.settings import Settings


class Count(BaseModel):
    """How many rows there are."""

    count: int


class Problem(BaseModel):
    """What is wrong, as a word for programs and a sentence for people."""

    code: str
    message: str


class Failure(BaseModel):
    """The shape of every answer that is no success."""

    error: Problem


def routes(client: Elasticsearch, settings: Settings) -> APIRouter:
    """The paths below ``/{merchant}/{type}``."""
    router = APIRouter(responses={status: {"model": Failure} for status in (400, 404, 422, 503)})
    types = document_types(settings)

    @router.get("/{merchant}/{type}/_count")
    def count(merchant: str, type: str) -> Count:
        """How many rows of this type the merchant has, exactly, as of the last refresh."""
        if not is_merchant(merchant):
            raise RequestError(HTTPStatus.BAD_REQUEST, "bad_merchant", "this is no merchant id")
        if type not in types:
            known = ", ".join(sorted(types))
            raise RequestError(
                HTTPStatus.NOT_FOUND, "unknown_type", f"there is no such type; there are: {known}"
            )
        return Count(count=SearchScope(client, settings.deployment, merchant).count(type))

    return router


def document_types(settings: Settings) -> frozenset[str]:
    """The types of all captured tables, by the configuration."""
    configuration = settings.configuration
    return frozenset(
        configuration.type_of(source, table)
        for source, captured in configuration.sources.items()
        for table in captured.tables
    )
