"""A small supervisor, as a PaaS has one: every command runs, and runs again when it ends.

One thread starts and reaps all processes. That is not for tidiness: the kernel's parent-death signal, which takes the
processes down when the supervisor itself is killed with -9, is sent when the *thread* that started them ends. It
reaches the command, not what the command may have started; no line of the Procfile starts anything.
"""

import os
import re
import shlex
import signal as signals
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from devstack import process

RELEASE = "release"
BACKOFF_FIRST, BACKOFF_LAST = 0.2, 5.0  # seconds, doubling
STEADY = 10.0  # seconds alive after which the back-off starts anew
GLANCE = 0.05  # seconds between looks at the processes
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class ReleaseFailed(Exception):
    """The release line did not end with 0; nothing else was started."""


class ProcfileError(ValueError):
    """A Procfile or a command that cannot be read; the text says which line or variable."""


def read_procfile(path: Path) -> dict[str, str]:
    """`name: command` per line, in order; empty lines and comments are skipped."""
    commands: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, command = (part.strip() for part in line.partition(":"))
        if not (colon and command and re.fullmatch(r"[a-z][a-z0-9_]*", name)) or name in commands:
            raise ProcfileError(f"{path}:{number}: want `name: command`, each name once, got {line!r}")
        commands[name] = command
    return commands


def words(command: str, env: Mapping[str, str]) -> list[str]:
    """Split as a shell does, then put in `$VAR` and `${VAR}`; a value with blanks stays one word."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in env:
            raise ProcfileError(f"{command!r} needs the variable {name}, which is not set")
        return env[name]

    return [_VARIABLE.sub(value, word) for word in shlex.split(command)]


@dataclass(slots=True)
class _Child:
    """One command and the process it has now, if any. Times are of the monotonic clock."""

    name: str
    command: str
    env: dict[str, str] = field(default_factory=dict)
    wanted: bool = False
    popen: process.Child | None = None
    began: float = 0.0
    due: float = 0.0
    pause: float = BACKOFF_FIRST
    starts: int = 0
    code: int | None = None


class Supervisor:
    """Runs commands until `stop`. Every method may be called by any thread.

    `env` is all a command sees, with this interpreter's directory put first on PATH; `cwd` is where it runs; each
    command writes to `logs/<name>.log`.
    """

    def __init__(self, commands: Mapping[str, str], env: Mapping[str, str], logs: Path, cwd: Path) -> None:
        path = f"{Path(sys.executable).parent}:{env.get('PATH', os.defpath)}"
        self._env = {**env, "PATH": path, "PYTHONUNBUFFERED": "1"}
        self._children = {name: _Child(name, command) for name, command in commands.items()}
        self._logs = logs
        self._cwd = cwd
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        for command in commands.values():
            words(command, self._env)

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def names(self) -> list[str]:
        """Every command but the release line."""
        return [name for name in self._children if name != RELEASE]

    def start_all(self) -> None:
        """Run the release line to its end, then start everything. Raises ReleaseFailed."""
        self.release()
        for name in self.names:
            self.start(name)

    def release(self) -> None:
        """Run the release line, if there is one, to its end. Raises ReleaseFailed."""
        if RELEASE not in self._children:
            return
        child = self._start(RELEASE)
        with self._changed:
            self._changed.wait_for(lambda: child.code is not None)
        if child.code:
            raise ReleaseFailed(f"release ended with {child.code}, see {self.log(RELEASE)}")

    def start(self, name: str) -> int:
        """Start a command that does not run, and keep it running. Returns its pid."""
        child = self._start(name)
        with self._changed:
            return child.popen.pid if child.popen else 0

    def _start(self, name: str) -> _Child:
        child = self._children[name]
        self._logs.mkdir(parents=True, exist_ok=True)
        with self._changed:
            if not self._thread.ident:
                self._thread.start()
            if child.popen is None:
                child.wanted, child.code, child.due, started = True, None, 0.0, child.starts
                self._changed.notify_all()
                self._changed.wait_for(lambda: child.starts > started or self._ended)
        return child

    def log(self, name: str) -> Path:
        """Where a command's output goes."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The command's process, None while there is none."""
        with self._changed:
            popen = self._children[name].popen
            return popen.pid if popen else None

    def restarts(self, name: str) -> int:
        """How often the command was started again."""
        with self._changed:
            return max(0, self._children[name].starts - 1)

    def set_env(self, name: str, env: Mapping[str, str]) -> None:
        """Add variables from the command's next start on."""
        with self._changed:
            self._children[name].env.update(env)

    def signal(self, name: str, sig: signals.Signals) -> None:
        """Signal the command's process group. Raises ProcessLookupError when it does not run."""
        with self._changed:
            popen = self._children[name].popen
            if popen is None:
                raise ProcessLookupError(f"{name} does not run")
            os.killpg(popen.pid, sig)

    def stop(self, timeout: float = 10) -> list[str]:
        """SIGTERM to every group, SIGKILL after `timeout` seconds. Returns the names that needed it."""
        with self._changed:
            for child in self._children.values():
                child.wanted = False
            self._signal_all(signals.SIGTERM)
            self._changed.wait_for(lambda: not self._living(), timeout)
            stubborn = [child.name for child in self._living()]
            self._signal_all(signals.SIGKILL)
            self._changed.wait_for(lambda: not (self._living() and self._thread.is_alive()))
            self._ended = True
            self._changed.notify_all()
        if self._thread.ident:
            self._thread.join()
        return stubborn

    def _living(self) -> list[_Child]:
        return [child for child in self._children.values() if child.popen]

    def _signal_all(self, sig: signals.Signals) -> None:
        for child in self._living():
            if child.popen:
                os.killpg(child.popen.pid, sig)
                if sig == signals.SIGTERM:
                    os.killpg(child.popen.pid, signals.SIGCONT)  # a stopped process cannot end

    def _watch(self) -> None:
        with self._changed:
            while not self._ended:
                for child in self._children.values():
                    self._tend(child)
                self._changed.wait(GLANCE)

    def _tend(self, child: _Child) -> None:
        if child.popen and _has_ended(child.popen.pid):
            self._bury(child, child.popen)
        if child.wanted and child.popen is None and time.monotonic() >= child.due:
            self._spawn(child)

    def _bury(self, child: _Child, popen: process.Child) -> None:
        """Reap an ended process. Its group goes first, while the number cannot have been given to another."""
        os.killpg(popen.pid, signals.SIGKILL)
        child.code, child.popen = popen.wait(), None
        if time.monotonic() - child.began >= STEADY:
            child.pause = BACKOFF_FIRST
        child.due = time.monotonic() + child.pause
        child.wanted = child.wanted and child.name != RELEASE
        again = f", again in {child.pause:.1f} s" if child.wanted else ""
        with open(self.log(child.name), "a") as log:
            log.write(f"--- {child.name} ended: {_verdict(child.code)}{again}\n")
        child.pause = min(BACKOFF_LAST, child.pause * 2)
        self._changed.notify_all()

    def _spawn(self, child: _Child) -> None:
        env = {**self._env, **child.env}
        command = ["setpriv", "--pdeathsig", "KILL", "--", *words(child.command, env)]
        child.popen = process.spawn(command, self.log(child.name), self._cwd, env)
        child.began = time.monotonic()
        child.starts += 1
        self._changed.notify_all()


def _has_ended(pid: int) -> bool:
    """True for a child that only waits to be reaped; leaves it so."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _verdict(code: int) -> str:
    return signals.Signals(-code).name if code < 0 else f"exit code {code}"


def command_lines(procfile: Path, names: Sequence[str]) -> dict[str, str]:
    """The Procfile's lines of these names (all when none is given), the release line always among them."""
    every = read_procfile(procfile)
    if unknown := set(names) - set(every):
        raise ProcfileError(f"{procfile} has no {', '.join(sorted(unknown))}; it has {', '.join(every)}")
    return {name: command for name, command in every.items() if not names or name in names or name == RELEASE}
