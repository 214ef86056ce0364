"""A sink that notices when a promise is broken."""

from __future__ import annotations

from dataclasses import dataclass, field


class Broken(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Sink:
    """Accepts everything once and in order; a first delivery out of order breaks a promise."""

    log: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)
    written: set[tuple[str, int]] = field(default_factory=set)

    def write(self, lane: str, offset: int) -> None:
        if (lane, offset) in self.written:
            return
        for earlier, good in self.log[lane]:
            if earlier < offset and good and (lane, earlier) not in self.written:
                raise Broken(f"{lane}: {offset} delivered before {earlier}")
        self.written.add((lane, offset))
