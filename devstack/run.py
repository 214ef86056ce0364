"""`python -m devstack run`: the Procfile under the supervisor, its output in one stream, until a signal."""

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import click

from devstack import dotenv
from devstack.home import Home
from devstack.supervisor import ReleaseFailed, Supervisor, command_lines

COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green", "bright_magenta")
PAUSE = 0.1  # seconds between looks at the logs
TIMEOUT = 10.0  # seconds a process has to drain

Emit = Callable[[str, str], None]


class AlreadyRunning(Exception):
    """Another `run` of this clone is going on."""


class Follower:
    """Passes on, line by line, what is appended to the logs."""

    def __init__(self, logs: Sequence[tuple[str, Path]], emit: Emit) -> None:
        self._logs = logs
        self._emit = emit
        self._read = {name: path.stat().st_size if path.exists() else 0 for name, path in logs}

    def look(self) -> None:
        """Emit every whole line written since the last look."""
        for name, path in self._logs:
            if path.exists():
                self._look_at(name, path)

    def _look_at(self, name: str, path: Path) -> None:
        if path.stat().st_size < self._read[name]:
            self._read[name] = 0  # moved aside because it had grown long
        with open(path, "rb") as file:
            file.seek(self._read[name])
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self._read[name] += len(whole) + 1
            for line in whole.decode(errors="replace").split("\n"):
                self._emit(name, line)


def environment(home: Home) -> dict[str, str]:
    """What the processes see: `.env`, overruled by ours.

    SSL_CERT_FILE is `.env`'s: that bundle holds all that the machine trusts, and the stand-in's authority.
    """
    known = dotenv.read(home.dotenv)
    trust = {name: known[name] for name in ("SSL_CERT_FILE",) if name in known}
    return {**known, **os.environ, **trust}


def run(home: Home, names: Sequence[str]) -> int:
    """Run the Procfile's lines until SIGINT, SIGTERM or SIGHUP. Returns the exit code."""
    commands = command_lines(home.repo / "Procfile", names)
    with _only_one(home), _signalled() as over:
        supervisor = Supervisor(commands, environment(home), home.state / "run", home.repo)
        follower = Follower([(name, supervisor.log(name)) for name in commands], _printer(list(commands)))
        with _following(follower):
            try:
                _start(supervisor, over)
                over.wait()
            except ReleaseFailed as error:
                click.echo(
                    f"{error}\nDo the services run (`make up`)? Do the source databases exist (`make demo` makes the example's)?",
                    err=True,
                )
                return 1
            finally:
                for name in supervisor.stop(TIMEOUT):
                    click.echo(f"{name} did not end within {TIMEOUT:.0f} s and was killed", err=True)
    return 0


def _start(supervisor: Supervisor, over: threading.Event) -> None:
    supervisor.release()
    for name in supervisor.names:
        if not over.is_set():
            supervisor.start(name)


@contextmanager
def _only_one(home: Home) -> Iterator[None]:
    directory = home.state / "run"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning("the Procfile of this clone runs already") from error
        yield


@contextmanager
def _signalled() -> Iterator[threading.Event]:
    """An event set by the signals that end us; main-thread waits return on it."""
    over = threading.Event()
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(sig, signal.signal(sig, lambda *_: over.set())) for sig in ends]
    try:
        yield over
    finally:
        for sig, former in before:
            signal.signal(sig, former)


@contextmanager
def _following(follower: Follower) -> Iterator[None]:
    """Look until the block is left, and once more, so that last words are seen."""
    over = threading.Event()

    def follow() -> None:
        while not over.wait(PAUSE):
            follower.look()

    thread = threading.Thread(target=follow, name="follower")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        follower.look()


def _printer(names: Sequence[str]) -> Emit:
    width = max(map(len, names))
    colours = dict(zip(names, cycle(COLOURS), strict=False))

    def emit(name: str, line: str) -> None:
        click.echo(click.style(f"{name:{width}} | ", fg=colours[name]) + line)

    return emit
