"""`pipeline api`: serve the HTTP interface."""

from __future__ import annotations

import click
import uvicorn

from pipeline.api.app import create_app
from pipeline.lanes.store import connect
from pipeline.settings import load
from pipeline.telemetry import Heartbeat, configure_logging

_DRAIN = 8  # seconds for open requests after SIGTERM; a platform kills after ten


@click.command()
def api() -> None:
    """Serve merchant search over HTTP on 127.0.0.1 at $PORT, until SIGTERM."""
    settings = load()
    configure_logging("web")
    client = connect(settings.environment.redis_url.get_secret_value())
    heartbeat = Heartbeat(client, settings.deployment, "web", dict).start()
    try:
        uvicorn.run(
            create_app(settings),
            host="127.0.0.1",
            port=settings.environment.port,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=_DRAIN,
        )
    finally:
        heartbeat.stop()
