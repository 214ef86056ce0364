"""Commits to Kafka: the proof that a partition is ours, and how far everything in it is done.

A commit that had no answer may arrive later, even behind the next one, as long as the member holds the partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pipeline.bridge.offsets import Partition
from pipeline.errors import FencedError, TransientError
from pipeline.failpoints import passes
from pipeline.ports import Committed, Offsets


class Commits:
    """One bridge's commits, and how long ago the last of them was."""

    def __init__(self, offsets: Offsets, clock: Callable[[], float]) -> None:
        self._offsets = offsets
        self._clock = clock
        self._at = clock()
        self._unanswered: dict[int, int] = {}

    @property
    def age(self) -> float:
        """Seconds since a commit, or since nothing was pending."""
        return self._clock() - self._at

    def may_arrive(self, number: int) -> int:
        """The highest offset of that partition that may yet become the committed one without an answer; 0 for none."""
        return self._unanswered.get(number, 0)

    def forget(self, numbers: Iterable[int]) -> None:
        """These are given out anew: what was sent for them before is refused."""
        for number in numbers:
            self._unanswered.pop(number, None)

    def prove(self, positions: Mapping[int, Committed]) -> None:
        """Commit what is committed; TransientError when a partition is not ours."""
        self._commit(positions)
        self._at = self._clock()

    def move(self, held: Mapping[int, Partition], positions: Mapping[int, int]) -> None:
        """Commit those positions that have moved."""
        moved = {number: offset for number, offset in positions.items() if offset > held[number].committed}
        if moved:
            passes("bridge.committing")
            self._commit(
                {number: Committed(at, held[number].doubles.note(at)) for number, at in moved.items()}
            )
            passes("bridge.committed")
        if moved or all(partition.smallest_pending() is None for partition in held.values()):
            self._at = self._clock()
        for number, offset in moved.items():
            held[number].committed = offset
            held[number].doubles.forget(offset)

    def _commit(self, positions: Mapping[int, Committed]) -> None:
        try:
            self._offsets.commit(positions)
        except FencedError as error:  # the next poll tells what was taken away
            raise TransientError(f"commit refused: {error.what}") from error
        except TransientError:
            for number, place in positions.items():
                self._unanswered[number] = max(place.offset, self.may_arrive(number))
            raise
