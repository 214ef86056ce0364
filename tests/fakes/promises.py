"""What must never happen to a lane, told from what its sink gets and from what is written down about it.

A lane's story counts its events only: doubles of a relay and records that nobody can read are nothing that has to arrive.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from pipeline.ports import DetachedRow


class Broken(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Story:
    """One lane: the offsets of its events, how many of them the sink has, and from where it must have them again.

    ``events[:first_time]`` were written once, or skipped; ``events[:done]`` again since the last rewind, which gave the
    lane the incarnation ``rewound``. ``skipped``: a person has said that they need not come.
    """

    name: str
    events: list[int] = field(default_factory=list)
    first_time: int = 0
    done: int = 0
    rewound: int = 0
    skipped: set[int] = field(default_factory=set)
    excused: set[int] = field(default_factory=set)

    def write(self, offset: int, incarnation: int) -> None:
        """The sink accepts a record that a turn took from that incarnation of the lane."""
        place = bisect_left(self.events, offset)
        self.first_time = self._past(self.first_time, self.excused)
        self.done = self._past(self.done, self.skipped)
        if place > self.first_time:
            raise Broken(f"{self.name}: {offset} comes before {self.events[self.first_time]}")
        if place > self.done and incarnation >= self.rewound:
            raise Broken(f"{self.name}: {offset} comes before {self.events[self.done]} of a rewind")
        if place < len(self.events) and self.events[place] == offset:
            self.first_time = max(self.first_time, place + 1)
            if place == self.done:
                self.done += 1

    def _past(self, place: int, exempt: set[int]) -> int:
        while exempt and place < len(self.events) and self.events[place] in exempt:
            place += 1
        return place

    def skip(self, first: int, end: int) -> None:
        """A person has let go of the events from `first` to before `end`."""
        gone = self.events[bisect_left(self.events, first) : bisect_left(self.events, end)]
        self.skipped.update(gone)
        self.excused.update(gone)

    def rewind(self, first: int, incarnation: int) -> None:
        """A person wants everything from `first` on again, what was skipped too."""
        self.done = min(self.done, bisect_left(self.events, first))
        self.skipped = {offset for offset in self.skipped if offset < first}
        self.rewound = incarnation

    def missing(self, end: int, row: DetachedRow | None) -> int | None:
        """An event below `end` that the sink does not have, and that no row speaks for."""
        self.done = self._past(self.done, self.skipped)
        place = self.done
        while place < len(self.events) and (offset := self.events[place]) < end:
            if offset not in self.skipped and not covers(row, offset):
                return offset
            place += 1
        return None

    def unseen(self, end: int) -> int | None:
        """An event below `end` that the sink never had."""
        self.first_time = self._past(self.first_time, self.excused)
        if self.first_time < len(self.events) and self.events[self.first_time] < end:
            return self.events[self.first_time]
        return None

    def complete(self) -> bool:
        """True when the sink has everything."""
        self.done = self._past(self.done, self.skipped)
        return self.done == len(self.events)


def covers(row: DetachedRow | None, offset: int) -> bool:
    """True when the row says that this record of its lane is not accepted yet."""
    return row is not None and row.first <= offset and (row.until is None or offset < row.until)


@dataclass(slots=True)
class Blame:
    """For each lane: turns since its last accepted event that may count against it.

    Those are turns that it had alone, and those in which its handler said so. ``given_up``: handlers have parked them.
    """

    counts: dict[str, int] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)

    def add(self, lane: str) -> None:
        """One more."""
        self.counts[lane] = self.counts.get(lane, 0) + 1

    def take_back(self, lane: str) -> None:
        """It was the sink that did not work."""
        self.counts[lane] = max(0, self.counts.get(lane, 0) - 1)

    def give_up(self, lane: str) -> None:
        """Its handler has parked it."""
        self.given_up.add(lane)

    def clear(self, lane: str) -> None:
        """It has got on."""
        self.counts[lane] = 0

    def require(self, lane: str, reason: str, most: int) -> None:
        """Nobody is parked for what others did, or the sink."""
        if lane not in self.given_up and self.counts.get(lane, 0) < most:
            raise Broken(f"{lane} is parked and has failed {self.counts.get(lane, 0)} times: {reason}")
