"""What every service has in common: how to prepare, start, recognise, ask and stop it."""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from devstack import process
from devstack.home import Home
from devstack.passwords import Passwords

Say = Callable[[str], None]


class NotReady(Exception):
    """The service does not answer yet; the text is the last answer it gave."""


class Unavailable(Exception):
    """The service cannot be started; `hint` says what to do about it."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Site:
    """What services are built from: directories, ports by name, passwords."""

    home: Home
    ports: Mapping[str, int]
    passwords: Passwords


@dataclass(frozen=True, slots=True)
class Service(ABC):
    """One process of the stack. Every method may be repeated."""

    site: Site

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    patience: ClassVar[float] = 60.0  # seconds until ready

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.site.ports[self.name]

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.site.home.logs / f"{self.name}.log"

    @property
    def data(self) -> Path | None:
        """What `down` keeps and `reset` deletes; None when it keeps nothing."""
        return self.site.home.state / self.name

    @property
    def cwd(self) -> Path:
        """A directory that the service's user can enter."""
        return self.site.home.state

    @property
    @abstractmethod
    def identity(self) -> process.Identity:
        """How its process is recognised."""

    @abstractmethod
    def prepare(self, say: Say) -> None:
        """Fetch, build and configure all that starting needs. Raises Unavailable."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of its process."""

    @abstractmethod
    def probe(self) -> str:
        """Ask a question that only a working service answers; return its version. Raises NotReady."""

    def settle(self) -> None:
        """Once it answers: make what its users expect to find."""
        return

    def environment(self) -> dict[str, str]:
        """The environment of its process."""
        return dict(os.environ)

    def running(self) -> int | None:
        """Its process, if there is one."""
        return process.find(self.identity)

    def remnants(self) -> list[int]:
        """Processes that a killed main process left behind."""
        return []
