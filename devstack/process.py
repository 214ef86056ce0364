"""Long-running processes, recognised by their command line in /proc: no pid file, so none that is stale or recycled."""

import atexit
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PAGE = os.sysconf("SC_PAGE_SIZE")
Child = subprocess.Popen[bytes]
# Python warns of a child object that is dropped while its process lives, which is just what we want to do.
_spawned: list[Child] = []
LOG_LIMIT = 16 << 20  # bytes; a longer log is moved aside at the next start


@dataclass(frozen=True, slots=True)
class Identity:
    """How a service's process looks: the program's name and arguments that only this clone's process has.

    Requiring the program keeps `less .devstack/redis/redis.conf` from passing for Redis.
    """

    program: str
    arguments: tuple[str, ...]

    def matches(self, argv: Sequence[str]) -> bool:
        """True when this command line belongs to the service."""
        return (
            bool(argv)
            and Path(argv[0]).name.startswith(self.program)
            and set(self.arguments) <= set(argv[1:])
        )


def argv_of(pid: int) -> list[str]:
    """The command line of a living process, empty for one that is gone, a zombie or a kernel thread."""
    try:
        return os.fsdecode((PROC / str(pid) / "cmdline").read_bytes()).rstrip("\0").split("\0")
    except OSError:
        return []


def pids() -> list[int]:
    """Every process of this machine that we may look at, oldest number first."""
    return sorted(int(entry) for entry in os.listdir(PROC) if entry.isdigit())


def find(identity: Identity) -> int | None:
    """The service's process, if it runs."""
    return next((pid for pid in pids() if identity.matches(argv_of(pid))), None)


def working_in(directory: Path, program: str) -> list[int]:
    """Processes of this program whose working directory is this one: how a PostgreSQL backend is recognised."""
    return [pid for pid in pids() if cwd_of(pid) == str(directory) and _program(pid) == program]


def cwd_of(pid: int) -> str:
    """The working directory of a process, empty when it is gone or not ours to look at."""
    try:
        return os.readlink(PROC / str(pid) / "cwd")
    except OSError:
        return ""


def _program(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """False for a process that is gone or only waits to be reaped."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def resident(pid: int) -> int:
    """Bytes of memory the process holds, 0 when it is gone."""
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def children(pid: int) -> list[int]:
    """Direct children, for adding up what a service of several processes uses."""
    try:
        return [
            int(child) for child in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
        ]
    except OSError:
        return []


def spawn(command: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str]) -> Child:
    """Start a detached process that outlives us, its output appended to the log."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.old"))
    with open(log, "ab") as output:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
    _spawned[:] = [*(known for known in _spawned if known.returncode is None), child]
    return child


def stop(targets: Iterable[int], sig: signal.Signals, grace: float) -> bool:
    """Signal processes and wait; SIGKILL what is left after `grace` seconds. True when that was needed."""
    left = [pid for pid in targets if _send(pid, sig)]
    for pid in left:
        _send(pid, signal.SIGCONT)  # a stopped process could not end
    forced = not wait_until(lambda: not any(map(alive, left)), grace)
    if forced:
        left = [pid for pid in left if alive(pid)]
        for pid in left:
            _send(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, left)), grace)
    return forced


@atexit.register
def _let_go() -> None:
    """Detached processes go on when we end: nothing to warn of."""
    for child in _spawned:
        child.returncode = child.poll() or 0


def _send(pid: int, sig: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)
        return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Poll until the condition holds; False when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def tail(log: Path, lines: int, start: int = 0) -> list[str]:
    """The last lines of a log written after byte `start`."""
    if not log.exists():
        return []
    with open(log, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start if start <= size else 0, size - 65536))
        return file.read().decode(errors="replace").splitlines()[-lines:]
