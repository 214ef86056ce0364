"""The processes of a chaos run: bridges and workers, each a process group of its own, started again when they end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["bridge", "threads", "prefork"]
_PROC = Path("/proc")
_PAUSE = 0.3  # seconds until an ended process is started again


@dataclass(slots=True)
class Member:
    """One command, and the process it has now. ``wanted``: it is started again when it ends."""

    name: str
    kind: Kind
    command: Sequence[str]
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    due: float = 0.0
    starts: int = 0
    stopped: bool = False

    @property
    def pid(self) -> int:
        """Its process, which must be there; also the number of its group and its session."""
        assert self.process is not None
        return self.process.pid


class Fleet:
    """Every method is for one thread: the kernel ends the processes when that thread ends."""

    def __init__(self, members: Sequence[Member], environment: Mapping[str, str], directory: Path) -> None:
        self.members = list(members)
        self._environment = dict(environment)
        self._directory = directory
        self._sessions: set[int] = set()
        self._prefix = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []

    def running(self, *kinds: Kind) -> list[Member]:
        """Members of these kinds that run and are not stopped."""
        return [
            member
            for member in self.members
            if member.process is not None and not member.stopped and member.kind in kinds
        ]

    def tend(self) -> None:
        """Reap what has ended and start what is wanted."""
        now = time.monotonic()
        for member in self.members:
            if member.process is not None and member.process.poll() is not None:
                self._log(member, f"ended with {member.process.returncode}")
                member.process, member.stopped, member.due = None, False, now + _PAUSE
            if member.process is None and member.wanted and now >= member.due:
                self._start(member)

    def signal(self, member: Member, sent: signal.Signals, *, group: bool) -> None:
        """Signal the process, or its whole group; nothing when it has ended."""
        if member.process is None:
            return
        if sent == signal.SIGSTOP:
            member.stopped = True
        elif sent == signal.SIGCONT:
            member.stopped = False
        self._log(member, f"gets {sent.name}")
        send(member.pid, sent, group=group)

    def bereave(self, session: int) -> None:
        """End what a process has left behind."""
        for pid in of_session(session):
            send(pid, signal.SIGKILL, group=False)

    def stop(self, grace: float) -> None:
        """SIGTERM to every group, SIGKILL after `grace` seconds."""
        for member in self.members:
            member.wanted = False
            for sent in (signal.SIGTERM, signal.SIGCONT):
                self.signal(member, sent, group=True)
        deadline = time.monotonic() + grace
        while any(member.process for member in self.members) and time.monotonic() < deadline:
            self.tend()
            time.sleep(0.05)
        for session in self._sessions:
            self.bereave(session)
        for member in self.members:
            if member.process is not None:
                member.process.wait()

    def _start(self, member: Member) -> None:
        log = self._directory / f"{member.name}.log"
        with log.open("ab") as output:
            member.process = subprocess.Popen(
                [*self._prefix, *member.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory.parent,
                env=self._environment,
                start_new_session=True,
            )
        member.starts += 1
        self._sessions.add(member.pid)
        self._log(member, f"started, pid {member.pid}")

    def _log(self, member: Member, what: str) -> None:
        with (self._directory / f"{member.name}.log").open("a") as log:
            log.write(f"--- {time.strftime('%H:%M:%S')} {member.name} {what}\n")


def send(pid: int, sent: signal.Signals, *, group: bool) -> None:
    """Signal a process or its group, if it is still there."""
    try:
        if group:
            os.killpg(pid, sent)
        else:
            os.kill(pid, sent)
    except ProcessLookupError:
        return


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    try:
        return [int(child) for child in (_PROC / f"{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def of_session(session: int) -> Iterator[int]:
    """Living processes of a session."""
    for entry in os.listdir(_PROC):
        if entry.isdigit():
            try:
                fields = (_PROC / entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(entry)
