"""``/metrics``: what every process of the deployment told in its last heartbeat, and what people hold, for Prometheus."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import redis
from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from pipeline.control import lane_views, placements
from pipeline.control.database import ControlDatabase
from pipeline.control.lane_views import Counts
from pipeline.errors import PipelineError, TransientError
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
        *(f"bridge_{name}" for name in ("records", "resyncs", "set_aside", "sweeps", "detachments")),
        *(f"worker_{name}" for name in ("turns", "events", "rejected", "failures", "refused", "turn_ms")),
    }
)
"""What only grows while a process lives, by kind and metric; all else is a gauge."""

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Held:
    """What does not simply flow: detached lanes and open requests, whole consumers that are paused, merchants that move."""

    lanes: Mapping[str, Counts]
    paused: Collection[str]
    moving: int


def routes(settings: Settings) -> APIRouter:
    """``/metrics``, 503 while Redis does not answer. Without the control database it tells of processes alone."""
    router = APIRouter()
    database = ControlDatabase(settings.environment.control_database_url.get_secret_value())
    consumers = sorted(settings.configuration.consumers)

    @router.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Every process that beat within the last 15 seconds."""
        try:
            with connect(settings.environment.redis_url.get_secret_value()) as client:
                states = heartbeats(client, settings.deployment)
        except redis.RedisError as error:
            raise TransientError(f"Redis does not answer: {type(error).__name__}") from error
        text = exposition(states, time.time()) + held_exposition(_held(database), consumers)
        return PlainTextResponse(text, media_type=_CONTENT_TYPE)

    return router


def _held(database: ControlDatabase) -> Held | None:
    try:
        pauses = {pause.consumer for pause in lane_views.pauses(database)}
        return Held(lane_views.counts(database), pauses, len(placements.under_way(database)))
    except PipelineError:
        return None
    finally:
        database.close()  # each thread of the server would keep one


def held_exposition(held: Held | None, consumers: Iterable[str]) -> str:
    """The text about what is held, of each of `consumers`; ``pipeline_control_up`` alone is 0 when nobody could be asked."""
    if held is None:
        return "# TYPE pipeline_control_up gauge\npipeline_control_up 0\n"
    lanes, requests, paused = list[str](), list[str](), list[str]()
    for consumer in consumers:
        counts, name = held.lanes.get(consumer, Counts()), f'name="{_escaped(consumer)}"'
        states = {"running": counts.running, "paused": counts.paused, "parked": counts.parked}
        lanes += [f'{{{name},state="{state}"}} {number}' for state, number in states.items()]
        requests.append(f"{{{name}}} {counts.requests}")
        paused.append(f"{{{name}}} {int(consumer in held.paused)}")
    figures = {
        "pipeline_consumer_paused": paused,
        "pipeline_control_up": [" 1"],
        "pipeline_lanes_detached": lanes,
        "pipeline_lanes_requests": requests,
        "pipeline_merchants_moving": [f" {held.moving}"],
    }
    return "".join(
        f"# TYPE {metric} gauge\n" + "".join(f"{metric}{value}\n" for value in values)
        for metric, values in figures.items()
        if values
    )


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
