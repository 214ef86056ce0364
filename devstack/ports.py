"""Ports: the one named by the environment or `.env` when it can be had, else a free one, the same at every start."""

import json
import os
import socket
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from devstack import dotenv

# Port name -> the variable that may name it. The others are internal to a service.
VARIABLES = {
    "postgres": "CONTROL_DATABASE_URL",
    "redis": "REDIS_URL",
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "kafka_controller": None,
    "elasticsearch": "ELASTICSEARCH_URL",
    "elasticsearch_transport": None,
    "s3": "AWS_ENDPOINT_URL",
    "redshift": "REDSHIFT_URL",
    "web": "PORT",
    "flower": "FLOWER_PORT",
}
LOOPBACK = {"127.0.0.1", "localhost"}
# Below the range the kernel takes outgoing ports from, so that none of ours is lent away while a service is down.
FIRST, SPAN = 15000, 15000


def named(value: str) -> int | None:
    """The port in a setting: a bare number, host:port or a URL on loopback; None for anything else."""
    if value.isdigit():
        return int(value)
    try:
        parts = urlsplit(value if "://" in value else f"//{value}")
        return parts.port if parts.hostname in LOOPBACK else None
    except ValueError:
        return None


def free(port: int) -> bool:
    """True when a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(
    path: Path, settings: Mapping[str, str], running: Callable[[str], bool], owner: str
) -> dict[str, int]:
    """Fix every port and remember them in `path`.

    A port of a running service stays. PORT and FLOWER_PORT are for processes that are not ours to start, so a kept or
    wanted number is not tested. `owner` spreads the ports of several clones.
    """
    kept: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    chosen: dict[str, int] = {}
    for name, variable in VARIABLES.items():
        wanted = [named(settings.get(variable, "")) if variable else None, kept.get(name)]
        if name in kept and running(name):
            wanted.insert(0, kept[name])
        sure = running(name) or name in ("web", "flower")
        usable = (port for port in wanted if port and port not in chosen.values() and (sure or free(port)))
        chosen[name] = next(usable, None) or _next_free(owner, name, {*chosen.values(), *kept.values()})
    if chosen != kept:
        dotenv.write_private(path, json.dumps(chosen, indent=1) + "\n")
    return chosen


def _next_free(owner: str, name: str, taken: set[int]) -> int:
    start = zlib.crc32(f"{owner} {name}".encode())
    candidates = (FIRST + (start + step) % SPAN for step in range(SPAN))
    return next(port for port in candidates if port not in taken and free(port))


def settings(path: Path) -> dict[str, str]:
    """What `.env` says, overruled by the process environment."""
    return {**dotenv.read(path), **os.environ}
