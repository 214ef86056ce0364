"""Runs plans against the databases, at a given rate, over several connections, and counts what was committed.

Each lane is a thread with a plan of its own and its own merchants, so that what a plan knows stays true; several
lanes interleave in the logs of the databases. Every transaction is one round trip (pipeline mode).
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure

from .known import known_rows, merge, reserve_keys
from .operations import Transaction
from .plan import Mix, Start, plan
from .report import ProbeLog, Report, Tally
from .statements import perform
from .tables import weight

_KNOWN_ROWS = 5_000
_LOCK = "example.traffic"
_ATTEMPTS = 20
_MOST_BEHIND = 1.0
"""Seconds of delay that a lane makes up for; what is beyond is given up, so that a stall ends in no flood."""


class Busy(Exception):
    """Other traffic is running on these databases; both would touch the same rows."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to run: `rate` row changes per second in all, by merchants 1..`merchants`, for `seconds` seconds.

    `connections` lanes, each with one connection per database and one more while a transaction is held open.
    `probe`: file for the probe log, with one line per `probe_every` transactions; None = no probes.
    """

    rate: float = 500.0
    merchants: int = 100
    seconds: float = 30.0
    seed: int = 1
    connections: int = 4
    probe: Path | None = None
    probe_every: int = 20
    mix: Mix = field(default_factory=Mix)


def run(
    urls: Mapping[str, str],
    load: Load,
    watch: Callable[[Report], None] = lambda report: None,
    stop: threading.Event | None = None,
) -> Report:
    """Runs until the time is over or `stop` is set; every transaction is then over, and counted.

    `watch` gets the counts so far about five times a second. A lane that fails stops the others, and its error is
    raised. Raises `Busy` when other traffic runs on these databases.
    """
    tally = Tally()
    with ExitStack() as resources:
        for url in urls.values():
            _claim(resources.enter_context(psycopg.connect(url, autocommit=True)))
        file = resources.enter_context(load.probe.open("a", encoding="utf-8")) if load.probe else None
        log = ProbeLog(file) if file else None
        sessions = [_connect(urls, resources) for _ in range(load.connections)]
        lanes = [
            _Lane(urls, own, transactions, tally, log)
            for own, transactions in zip(sessions, _plans(sessions[0], load), strict=True)
        ]
        return _race(lanes, load, tally, watch, stop or threading.Event())


def _claim(session: psycopg.Connection) -> None:
    row = session.execute("select pg_try_advisory_lock(hashtext(%s))", [_LOCK]).fetchone()
    if row != (True,):
        raise Busy("other traffic is running on these databases")


def _connect(urls: Mapping[str, str], resources: ExitStack) -> dict[str, psycopg.Connection]:
    return {source: resources.enter_context(psycopg.connect(url)) for source, url in urls.items()}


def _plans(sessions: Mapping[str, psycopg.Connection], load: Load) -> list[Iterator[Transaction]]:
    """One plan per lane: no two share a merchant, a row or a key."""
    first = merge([reserve_keys(session, source) for source, session in sessions.items()])
    plans = []
    for lane, merchants in enumerate(share_out(load.merchants, load.connections)):
        known = [
            row for source, own in sessions.items() for row in known_rows(own, source, merchants, _KNOWN_ROWS)
        ]
        start = Start(
            known=tuple(known),
            first={place: number + lane for place, number in first.items()},
            step=load.connections,
            at=datetime.now(UTC),
            probe_every=load.probe_every if load.probe else 0,
        )
        plans.append(
            plan(f"{load.seed} {lane} {first['gateway0', 'transactions']}", merchants, start, load.mix)
        )
    for session in sessions.values():
        session.commit()
    return plans


def share_out(merchants: int, lanes: int) -> list[list[int]]:
    """Merchants 1..n over the lanes, so that each lane has about the same weight. Raises ValueError if too few."""
    if merchants < lanes:
        raise ValueError(f"{lanes} connections need at least as many merchants, not {merchants}")
    shares: list[list[int]] = [[] for _ in range(lanes)]
    weights = [0.0] * lanes
    for merchant in range(1, merchants + 1):
        lightest = weights.index(min(weights))
        shares[lightest].append(merchant)
        weights[lightest] += weight(merchant)
    return shares


def _race(
    lanes: list["_Lane"], load: Load, tally: Tally, watch: Callable[[Report], None], stop: threading.Event
) -> Report:
    began = time.monotonic()
    with ThreadPoolExecutor(len(lanes), "traffic") as pool:
        running = {
            pool.submit(lane.run, load.rate / len(lanes), began + load.seconds, stop) for lane in lanes
        }
        try:
            while any(not lane.done() for lane in running):
                failed = wait(running, timeout=0.2, return_when=FIRST_EXCEPTION).done
                if any(lane.exception() for lane in failed):
                    stop.set()
                watch(tally.report(time.monotonic() - began))
        finally:
            stop.set()
    for lane in running:
        lane.result()
    return tally.report(time.monotonic() - began)


class _Lane:
    """One plan and its connections. A transaction that is held open gets a connection and a thread of its own."""

    def __init__(
        self,
        urls: Mapping[str, str],
        sessions: Mapping[str, psycopg.Connection],
        transactions: Iterator[Transaction],
        tally: Tally,
        log: ProbeLog | None,
    ) -> None:
        self._urls = urls
        self._sessions = sessions
        self._transactions = transactions
        self._tally = tally
        self._log = log

    def run(self, rate: float, until: float, stop: threading.Event) -> None:
        """Transactions at `rate` row changes per second until that moment of the monotonic clock."""
        held: Future[None] | None = None
        due = time.monotonic()
        with ThreadPoolExecutor(1, "traffic-held") as aside:
            while not stop.wait(max(0.0, min(due, until) - time.monotonic())) and time.monotonic() < until:
                transaction = next(self._transactions)
                if transaction.hold and (held is None or held.done()):
                    _raise_failure(held)
                    hold = min(transaction.hold, until - time.monotonic())
                    held = aside.submit(self._hold, transaction, partial(stop.wait, hold))
                else:
                    self._end(self._sessions[transaction.source], transaction, lambda: None)
                due = max(due, time.monotonic() - _MOST_BEHIND) + transaction.events().total() / rate
        _raise_failure(held)

    def _hold(self, transaction: Transaction, pause: Callable[[], object]) -> None:
        with psycopg.connect(self._urls[transaction.source]) as session:
            self._end(session, transaction, pause)

    def _end(
        self, session: psycopg.Connection, transaction: Transaction, pause: Callable[[], object]
    ) -> None:
        missed, retries = _retried(lambda: perform(session, transaction, pause))
        if self._log:
            self._log.write(transaction)
        self._tally.add(transaction, missed, retries)


def _retried(attempt: Callable[[], int]) -> tuple[int, int]:
    """What the attempt returns, and how often it had to be repeated because of other transactions."""
    for retries in range(_ATTEMPTS - 1):
        try:
            return attempt(), retries
        except (SerializationFailure, DeadlockDetected):
            continue
    return attempt(), _ATTEMPTS - 1


def _raise_failure(held: Future[None] | None) -> None:
    if held is not None:
        held.result()
