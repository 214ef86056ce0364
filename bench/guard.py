"""A bench runs alone: one at a time, and beside no other work of the pipeline on this machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devstack import process
from pipeline.errors import PipelineError
from pipeline.lanes.store import connect

_VERBS = {"bridge", "capture", "api", "verify", "demo", "bench", "warehouse", "migrate"}
_MODULES = {"example.demo": "demo", "pytest": "tests", "celery": "celery"}


class BusyError(PipelineError):
    """Something else is at work: what is measured beside it means nothing."""


def work_of(argv: Sequence[str]) -> str | None:
    """What a command line does that would be measured too: a few words, or None."""
    words = [Path(word).name for word in argv[:2]] + list(argv[2:])
    if "tasks.app" in argv:
        return "celery " + next((word for word in argv if word in ("worker", "beat", "flower")), "")
    module = argv[argv.index("-m") + 1] if "-m" in argv[:-1] else ""
    if module in _MODULES:
        return _MODULES[module]
    if "pytest" in words[:2]:
        return "tests"
    place = (
        2 if module == "pipeline" else next((n for n, word in enumerate(words[:2]) if word == "pipeline"), -1)
    )
    rest = argv[place + 1 :] if place >= 0 and Path(argv[0]).name.startswith(("python", "pipeline")) else []
    return f"pipeline {' '.join(rest[:2])}" if rest and rest[0] in _VERBS else None


def others() -> list[str]:
    """What is at work beside this process and those it descends from."""
    mine = _ancestors(os.getpid())
    found = ((pid, work_of(process.argv_of(pid))) for pid in process.pids() if pid not in mine)
    return [f"{work} (pid {pid})" for pid, work in found if work]


def beating(redis_url: str) -> list[str]:
    """Processes of any deployment that beat in this Redis within the last 15 seconds; they may be on other machines."""
    with connect(redis_url) as client:
        keys = [key.decode() for key in client.scan_iter(match="*:heartbeat:*", count=1000)]
    return sorted({":".join(key.split(":heartbeat:")) for key in keys})


def _ancestors(pid: int) -> set[int]:
    found = set()
    while pid > 1 and pid not in found:
        found.add(pid)
        fields = (process.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        pid = int(fields[1])
    return found


@contextmanager
def alone(lock: Path, redis_url: str, *, anyway: bool) -> Iterator[list[str]]:
    """Hold the bench's lock; yields what works beside it, and raises BusyError for that unless `anyway`."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError("another bench runs", hint=f"it holds {lock}") from error
        beside = others() or beating(redis_url)
        if beside and not anyway:
            raise BusyError(
                f"at work beside the bench: {', '.join(beside[:8])}",
                hint="stop it first: both would measure each other",
            )
        yield beside
