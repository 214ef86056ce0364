"""The turns that this process has in hand: held by renewing their leases, handed in with the next step.

Several threads use one ``HeldTurns``: the worker's loop claims, pool threads start and finish, a thread renews.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from pipeline.errors import PipelineError
from pipeline.lanes.claim import Claim, Finished, Step, TurnLimits
from pipeline.lanes.store import RedisLaneStore
from pipeline.lanes.turn import Backoff, Finish, Jitter, undecided

Clock = Callable[[], float]


@dataclass(slots=True)
class _Held:
    claim: Claim
    since: float
    started: bool = False


@dataclass(slots=True)
class Tally:
    """What this process has done since it started; ``milliseconds`` is the time spent in handlers."""

    turns: int = 0
    events: int = 0
    rejected: int = 0
    failures: int = 0
    refused: int = 0
    milliseconds: int = 0


class HeldTurns:
    """One consumer's turns in this process, from claim to acknowledgement."""

    def __init__(self, store: RedisLaneStore, jitter: Jitter, clock: Clock = time.monotonic) -> None:
        self.store = store
        self.tally = Tally()
        self.highest = 0
        self._jitter = jitter
        self._backoff = Backoff(jitter)
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._finished: list[Finished] = []
        self._leaving = False

    @property
    def limits(self) -> TurnLimits:
        """How this consumer's lanes are claimed."""
        return self.store.limits

    def jitter(self) -> float:
        """A number in (0, 1] that spreads what several workers do at the same moment."""
        return 1 - self._jitter() / 2

    def arrived(self, step: Step) -> Claim | None:
        """A step was answered: remember its claim as held by this process."""
        with self._lock:
            self.tally.refused += step.refused
            if step.claim is not None:
                self.highest = max(self.highest, step.claim.token)
                self._held[step.claim.token] = _Held(step.claim, self._clock())
        return step.claim

    def started(self, token: int) -> None:
        """The handler begins."""
        with self._lock:
            held = self._held.get(token)
            if held is not None:
                held.started, held.since = True, self._clock()

    def finished(self, token: int, finish: Finish) -> None:
        """The turn came back: its outcomes go with the next step, at once when no step will follow."""
        with self._lock:
            held = self._held.pop(token, None)
            if held is None:
                return
            self._finished.append(Finished(held.claim, finish.outcomes))
            self._count(held, finish)
        if self._leaving:
            self.flush()

    def lost(self, token: int, reason: str) -> None:
        """The turn broke down without outcomes: all of it is tried again, counted. Nothing if it came back."""
        with self._lock:
            held = self._held.get(token)
        if held is not None:
            self.finished(token, undecided(held.claim, reason, self._backoff))

    def has_finished(self) -> bool:
        """True while outcomes wait for a step."""
        return bool(self._finished)

    def take_finished(self) -> list[Finished]:
        """The outcomes that a step is going to carry now."""
        with self._lock:
            taken, self._finished = self._finished, []
        return taken

    def put_back(self, finished: Sequence[Finished]) -> None:
        """That step may not have happened: the next one carries them again; twice does no harm."""
        with self._lock:
            self._finished = [*finished, *self._finished]

    def flush(self) -> None:
        """Hand in outcomes now, without claiming. Redis away: they wait for the next step, or their lease ends."""
        finished = self.take_finished()
        if not finished:
            return
        try:
            self.arrived(self.store.step(finished, claim=False, floor=self.highest, jitter=self.jitter()))
        except PipelineError:
            self.put_back(finished)

    def join(self) -> None:
        """Claiming begins, or goes on."""
        self._leaving = False

    def leave(self) -> None:
        """Claiming ends: what has not begun goes back at once, what has finished is handed in at once."""
        self._leaving = True
        with self._lock:
            unstarted = [token for token, held in self._held.items() if not held.started]
        for token in unstarted:
            self.give_back(token)
        self.flush()

    def acknowledged(self, token: int) -> None:
        """Celery is done with the message of a turn: its outcomes have come by ``finished``."""

    def rejected(self, token: int, *, requeue: bool) -> None:
        """Celery did not take the message of a turn: it goes back, whether or not Celery would have it `requeue`d."""
        self.give_back(token)

    def end(self) -> None:
        """The pool has ended."""
        self.leave()

    def give_back(self, token: int) -> None:
        """Release a turn that has not begun."""
        with self._lock:
            self._held.pop(token, None)
        try:
            self.store.release(token)
        except PipelineError as error:
            structlog.get_logger().warning("turn not released, its lease ends", token=token, error=error.what)

    def renew(self) -> None:
        """Renew the leases of the turns held, save those that are older than a turn may be."""
        oldest = self._clock() - self.limits.longest / 1000
        with self._lock:
            tokens = [token for token, held in self._held.items() if held.since > oldest]
        if tokens:
            self.store.renew(tokens)

    def _count(self, held: _Held, finish: Finish) -> None:
        tally = self.tally
        tally.turns += 1
        tally.events += sum(outcome.entries for outcome in finish.outcomes)
        tally.rejected += finish.rejected
        tally.failures += sum(outcome.kind != "done" for outcome in finish.outcomes)
        tally.milliseconds += round((self._clock() - held.since) * 1000)


class Renewal:
    """Renews the leases of several consumers' turns from a thread of its own, whatever the worker's loop does."""

    def __init__(self, held: Sequence[HeldTurns]) -> None:
        self._held = held
        self._interval = min((turns.limits.lease for turns in held), default=10_000) / 3000
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lane-leases", daemon=True)

    def start(self) -> Renewal:
        """Begin renewing."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End renewing."""
        self._stop.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            for turns in self._held:
                try:
                    turns.renew()
                except PipelineError as error:
                    structlog.get_logger().warning("leases not renewed", error=error.what)
