"""Hears what sinks have accepted: of every partition in its time, of a few in each round, so that none takes long."""

from __future__ import annotations

from math import ceil

from pipeline.bridge.holdings import Holdings


class Hearing:
    """Of every partition that is held, about every `every` seconds."""

    def __init__(self, holdings: Holdings, every: float) -> None:
        self._holdings = holdings
        self._every = every
        self._asked_at = holdings.clock()
        self._heard_at: dict[int, float] = {}

    def some(self) -> None:
        """Those whose time it is; as many as the time since the last call is worth."""
        now, held = self._holdings.clock(), self._holdings.partitions
        share = ceil(len(held) * (now - self._asked_at) / self._every)
        self._asked_at = now
        self._heard_at = {number: self._heard_at.get(number, 0.0) for number in held}
        due = sorted((at, number) for number, at in self._heard_at.items() if at <= now - self._every)
        for _, number in due[:share]:
            self._holdings.hear(held[number])
            self._heard_at[number] = now

    def all(self) -> None:
        """All of them."""
        for partition in self._holdings.partitions.values():
            self._holdings.hear(partition)
