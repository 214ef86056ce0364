"""One backlog, relayed again and again: to nobody, with kafka-python, with confluent-kafka, in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg

from bench import proc
from bench.capture.backlog import Backlog, backlog
from bench.capture.site import SHOP, CaptureSite, Client
from bench.drain import commit
from bench.load import Changes
from bench.servers import servers

RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Drained:
    """One relay's way through the backlog, its warm-up left out; `cpu` is CPU seconds by process, `busy` the machine's."""

    client: Client
    rows: int
    seconds: float
    cpu: dict[str, float]
    busy: float

    @property
    def events_per_s(self) -> float:
        """Changes published per second."""
        return self.rows / self.seconds

    def cpu_us(self, process: str) -> float:
        """CPU microseconds per change of the relay or a server."""
        return self.cpu[process] / self.rows * 1e6


@dataclass(frozen=True, slots=True)
class Filled:
    """What waits: a few changes to warm up with, up to tick `warm`, then `rows` up to tick `full`."""

    start: int
    warm: int
    full: int
    rows: int


def fill(
    site: CaptureSite, changes: Changes, warm_up: int, rows: int, say: Callable[[str, int], None]
) -> Filled:
    """Commit a backlog while no relay runs."""
    url = site.writer_url_of(SHOP)
    with backlog(site.settings.source_url(SHOP)) as queue:
        start = queue.tick()
        commit(url, changes, warm_up, say)
        warm = queue.tick()
        commit(url, changes, rows, say)
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(
                "ANALYZE"
            )  # as autovacuum would have: a snapshot expects as many rows as that has counted
        return Filled(start, warm, queue.tick(), rows)


def measure(
    site: CaptureSite,
    filled: Filled,
    rounds: int,
    clients: Sequence[Client],
    say: Callable[[str, int, int], None],
) -> list[Drained]:
    """Relay the backlog with each client, so many times."""
    found = list[Drained]()
    with backlog(site.settings.source_url(SHOP)) as queue:
        for number in range(rounds):
            turn = number % len(clients)
            for client in (*clients[turn:], *clients[:turn]):
                say(f"relay: {client}", len(found), rounds * len(clients))
                found.append(_drain(site, queue, filled, client))
    return found


def _drain(site: CaptureSite, queue: Backlog, filled: Filled, client: Client) -> Drained:
    queue.rewind(filled.start)
    processes = {RELAY: site.start_relay(client), **servers()}
    began = queue.await_finished(filled.warm)
    cpu, busy = proc.cpu_seconds(processes), proc.machine_seconds()
    ended = queue.await_finished(filled.full)
    spent = proc.differences(proc.cpu_seconds(processes), cpu)
    busy = proc.machine_seconds() - busy
    site.stop_relay()
    return Drained(client, filled.rows, ended - began, spent, busy)
