"""The application: which paths there are, and what they need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from pipeline.api import errors, health, metrics, rows
from pipeline.search.client import connect
from pipeline.settings import Settings

_TIMEOUT = 10.0  # seconds a request waits for Elasticsearch


def create_app(settings: Settings) -> FastAPI:
    """The web application of one deployment; it connects when first asked."""
    client = connect(settings.environment.elasticsearch_url.get_secret_value(), timeout=_TIMEOUT)

    @asynccontextmanager
    async def closing(_: FastAPI) -> AsyncIterator[None]:
        yield
        client.close()

    app = FastAPI(title="Merchant Pipeline", lifespan=closing, redirect_slashes=False)
    errors.install(app)
    app.include_router(health.routes(client, settings))
    app.include_router(metrics.routes(settings))
    app.include_router(rows.routes(client, settings))
    return app
