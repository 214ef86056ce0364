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

    def write(self, merchant: str, offset: int) -> None:
        if (merchant, offset) in self.written:
            return
        for earlier, good in self.log[merchant]:
            if earlier < offset and good and (merchant, earlier) not in self.written:
                raise Broken(f"{merchant}: {offset} delivered before {earlier}")
        self.written.add((merchant, offset))
