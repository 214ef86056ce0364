"""``python -m bench.lanes.traffic FILE``: events at a steady pace, and a log of when each was handed to the Kafka client.

FILE is a ``Traffic`` as JSON. Prints how late the latest event was, in seconds. Without a log, nothing is noted.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bench.lanes.events import Envelopes, zipf
from bench.lanes.publishing import producer

SENT = struct.Struct("<iqd")
"""Partition, offset, and the moment before the record was handed to the client, in monotonic seconds."""
_CROWD = 1000  # events/s above which several go at once
_TOGETHER = 0.005  # seconds
_FINE = 0.001  # seconds: the client waits for whole milliseconds, and for less not at all


class Traffic(msgspec.Struct, frozen=True):
    """`count` events at `rate` a second from `begin` on (monotonic), of merchants by Zipf's law; `log` may be empty."""

    bootstrap: str
    topic: str
    source: str
    merchants: list[str]
    rate: float
    count: int
    begin: float
    seed: int
    log: str = ""


def moments(rate: float, count: int, seed: int) -> Iterator[tuple[float, int]]:
    """When, in seconds from the beginning, how many events go: at random times, at high rates every five milliseconds."""
    if rate > _CROWD:
        together = round(rate * _TOGETHER)
        for start in range(0, count, together):
            yield start / rate, min(together, count - start)
        return
    dice, at = random.Random(seed), 0.0
    for _ in range(count):
        at += dice.expovariate(rate)
        yield at, 1


class _Log:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0

    def acknowledged(self, sent: float, error: object, message: Any) -> None:
        if error is not None:
            raise RuntimeError(f"Kafka did not take an event: {error}")
        self._file.write(SENT.pack(message.partition(), message.offset(), sent))
        self.count += 1


def run(traffic: Traffic) -> float:
    """Send everything; returns by how many seconds the latest event was late."""
    client = producer(traffic.bootstrap, 0 if traffic.log else 5)
    client.list_topics(traffic.topic, timeout=10)
    envelopes = Envelopes(traffic.source)
    chosen = map(envelopes.of, zipf(traffic.merchants, traffic.count, traffic.seed))
    worst = time.monotonic() - traffic.begin
    if worst > 0:
        raise RuntimeError(f"ready {worst:.1f} s after the beginning")
    with Path(traffic.log or "/dev/null").open("wb") as file:
        log = _Log(file)
        for at, together in moments(traffic.rate, traffic.count, traffic.seed):
            due = traffic.begin + at
            while (left := due - time.monotonic()) > 0:
                if left < _FINE:
                    time.sleep(left)
                else:
                    client.poll(left)
            worst = max(worst, -left)
            for _ in range(together):
                partition, key, value = next(chosen)
                noted = partial(log.acknowledged, time.monotonic()) if traffic.log else None
                client.produce(traffic.topic, value, key, partition, on_delivery=noted)
            client.poll(0)
        client.flush(30)
    if len(client) or (traffic.log and log.count != traffic.count):
        raise RuntimeError("Kafka did not take every event")
    return worst


def main() -> None:
    """The command line."""
    traffic = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Traffic)
    sys.stdout.write(f"{run(traffic):.4f}\n")


if __name__ == "__main__":
    main()
