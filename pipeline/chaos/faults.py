"""The faults that strike processes and the load. Each returns whom it hit; NotNow when there is nobody to hit."""

from __future__ import annotations

import heapq
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from pipeline.chaos.fleet import Fleet, Kind, Member, children, send
from pipeline.chaos.load import Load
from pipeline.chaos.site import Site

if TYPE_CHECKING:
    from pipeline.chaos.operators import Operators

WORKERS: tuple[Kind, ...] = ("threads", "prefork")
LEASE, SESSION, GRACE = (
    2.0,
    6.0,
    10.0,
)  # seconds: a worker's lease, a bridge's session, from SIGTERM to SIGKILL


class NotNow(Exception):
    """Nothing there that this fault could strike."""


class Timers:
    """What is to be done later: all of it mends what a fault has done, so at the end nothing waits for its time."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do it in so many seconds."""
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), act))

    def run(self) -> None:
        """Do what is due."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    def hasten(self) -> None:
        """All of it is due now."""
        self._due = [(0.0, number, act) for _, number, act in self._due]

    @property
    def idle(self) -> bool:
        """True when nothing is left to do."""
        return not self._due


@dataclass
class Field:
    """Everything that faults may touch."""

    site: Site
    fleet: Fleet
    load: Load
    operators: Operators
    timers: Timers = field(default_factory=Timers)
    redis_is_full: bool = False

    def merchants(self, dice: Random, count: int) -> list[str]:
        """Some merchants, the busiest more often."""
        names = list(self.load.acknowledged)
        found = {names[min(len(names) - 1, int(len(names) ** dice.random()) - 1)] for _ in range(count)}
        return sorted(found)


class Fault(NamedTuple):
    """How to strike, and how often beside others."""

    strike: Callable[[Field, Random], str]
    weight: float


def _one(field: Field, dice: Random, *kinds: Kind) -> Member:
    running = field.fleet.running(*kinds)
    # One of a kind goes on: with everything gone nothing can go wrong.
    others = [one for one in running if len(field.fleet.running(*_alike(one))) > 1]
    if not others:
        raise NotNow
    return dice.choice(others)


def _alike(member: Member) -> tuple[Kind, ...]:
    return WORKERS if member.kind in WORKERS else (member.kind,)


def kill_worker(field: Field, dice: Random) -> str:
    """kill -9 of a worker: its whole group, or itself alone, and what it leaves behind goes on for a while."""
    member, group = _one(field, dice, *WORKERS), dice.random() < 0.5
    pid = member.pid
    field.fleet.signal(member, signal.SIGKILL, group=group)
    if not group:
        field.timers.later(LEASE * 2, lambda: field.fleet.bereave(pid))
    return f"{member.name}{'' if group else ' alone'}"


def kill_child(field: Field, dice: Random) -> str:
    """kill -9 of a process of a pool."""
    member = _one(field, dice, "prefork")
    below = children(member.pid)
    if not below:
        raise NotNow
    send(dice.choice(below), signal.SIGKILL, group=False)
    return f"a child of {member.name}"


def kill_bridge(field: Field, dice: Random) -> str:
    """kill -9 of a bridge."""
    member = _one(field, dice, "bridge")
    field.fleet.signal(member, signal.SIGKILL, group=True)
    return member.name


def _stop(field: Field, member: Member, seconds: float) -> str:
    field.fleet.signal(member, signal.SIGSTOP, group=True)
    pid = member.pid

    def wake() -> None:
        if member.process is not None and member.pid == pid:
            field.fleet.signal(member, signal.SIGCONT, group=True)

    field.timers.later(seconds, wake)
    return f"{member.name} for {seconds:.1f} s"


def stop_worker(field: Field, dice: Random) -> str:
    """SIGSTOP of a worker for longer than its leases; then it wakes and goes on."""
    return _stop(field, _one(field, dice, *WORKERS), LEASE * dice.uniform(1.2, 3))


def stop_bridge(field: Field, dice: Random) -> str:
    """SIGSTOP of a bridge for longer than its session; then it wakes and goes on."""
    return _stop(field, _one(field, dice, "bridge"), SESSION * dice.uniform(1.1, 1.6))


def terminate(field: Field, dice: Random) -> str:
    """SIGTERM to a whole group, as a platform does, and SIGKILL ten seconds later if it is still there."""
    member = _one(field, dice, *WORKERS, "bridge")
    pid, process = member.pid, member.process
    field.fleet.signal(member, signal.SIGTERM, group=True)

    def end() -> None:
        if member.process is process:
            field.fleet.signal(member, signal.SIGKILL, group=True)
        field.fleet.bereave(pid)

    field.timers.later(GRACE, end)
    return member.name


def rebalance(field: Field, dice: Random) -> str:
    """A bridge more joins its group, or leaves it."""
    spare = [member for member in field.fleet.members if member.kind == "bridge"][-1]
    spare.wanted = not spare.wanted
    if not spare.wanted and spare.process is not None:
        field.fleet.signal(spare, signal.SIGTERM, group=True)
        field.fleet.signal(spare, signal.SIGCONT, group=True)
    return f"{spare.name} {'joins' if spare.wanted else 'leaves'}"


def double(field: Field, _: Random) -> str:
    """A relay dies before it has finished a batch, and publishes it again."""
    field.load.repeat()
    return "a batch"


def sink_away(field: Field, dice: Random) -> str:
    """The sink takes nothing for a while: nobody's fault."""
    seconds = dice.uniform(2, 5)
    field.site.sink.go_away()
    field.timers.later(seconds, field.site.sink.come_back)
    return f"for {seconds:.1f} s"


def fail_lanes(field: Field, dice: Random) -> str:
    """Some merchants, busy and idle ones, fail for a while: their lanes hold events whatever else strikes."""
    merchants = field.merchants(dice, dice.randint(2, 12))
    for merchant in merchants:
        field.site.sink.poison(merchant, field.load.acknowledged[merchant] + 1, "fail")
    seconds = dice.uniform(3, 8)
    field.timers.later(seconds, lambda: field.site.sink.cure(merchants))
    return f"{', '.join(merchants)} for {seconds:.1f} s"


PROCESSES: Mapping[str, Fault] = {
    "kill-worker": Fault(kill_worker, 3),
    "kill-child": Fault(kill_child, 3),
    "kill-bridge": Fault(kill_bridge, 2),
    "stop-worker": Fault(stop_worker, 4),
    "stop-bridge": Fault(stop_bridge, 1),
    "terminate": Fault(terminate, 2),
    "rebalance": Fault(rebalance, 1),
    "double": Fault(double, 1),
    "sink-away": Fault(sink_away, 1),
    "fail-lanes": Fault(fail_lanes, 3),
}
