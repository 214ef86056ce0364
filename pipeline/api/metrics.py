"""``/metrics``: what every process of the deployment told in its last heartbeat, as Prometheus reads it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable

import redis
from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from pipeline.errors import TransientError
from pipeline.lanes.store import connect
from pipeline.settings import Settings
from pipeline.telemetry import ProcessState, heartbeats

COUNTERS = frozenset(
    {
        *(
            f"capture_{name}"
            for name in ("events_published", "events_without_image", "events_read_again", "events_left_out")
        ),
        *(f"capture_{name}" for name in ("events_too_large", "batches", "snapshot_rows", "sweeps_published")),
        *(f"bridge_{name}" for name in ("records", "resyncs", "set_aside", "sweeps")),
        *(f"worker_{name}" for name in ("turns", "events", "rejected", "failures", "refused", "turn_ms")),
    }
)
"""What only grows while a process lives, by kind and metric; all else is a gauge."""

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def routes(settings: Settings) -> APIRouter:
    """``/metrics``, 503 while Redis does not answer."""
    router = APIRouter()

    @router.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Every process that beat within the last 15 seconds."""
        try:
            with connect(settings.environment.redis_url.get_secret_value()) as client:
                states = heartbeats(client, settings.deployment)
        except redis.RedisError as error:
            raise TransientError(f"Redis does not answer: {type(error).__name__}") from error
        return PlainTextResponse(exposition(states, time.time()), media_type=_CONTENT_TYPE)

    return router


def exposition(states: Iterable[ProcessState], now: float) -> str:
    """The text: ``pipeline_<kind>_<metric>{name, host, pid}``; a metric in words is 1 while it says something."""
    samples: dict[str, list[str]] = defaultdict(list)
    for state in states:
        kind, name = _kind_and_name(state.process)
        labels = f'{{name="{_escaped(name)}",host="{_escaped(state.host)}",pid="{state.pid}"}}'
        figures = {"beat_age_seconds": round(now - state.at, 3), **state.metrics}
        for metric, value in figures.items():
            number = value if isinstance(value, int | float) else int(bool(value))
            samples[f"pipeline_{kind}_{metric}"].append(f"{labels} {number}")
    lines = []
    for metric, values in sorted(samples.items()):
        kind = "counter" if metric.removeprefix("pipeline_") in COUNTERS else "gauge"
        lines.append(f"# TYPE {metric} {kind}")
        lines += [f"{metric}{value}" for value in values]
    return "\n".join(lines) + "\n"


def _kind_and_name(process: str) -> tuple[str, str]:
    """``capture-gateway0``, ``worker:search``, ``web``: what it is, and whose."""
    place = next((place for place, letter in enumerate(process) if letter in "-:"), len(process))
    return process[:place], process[place + 1 :]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
