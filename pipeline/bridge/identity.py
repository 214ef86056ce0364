"""That a consumer's topics are those that its offsets belong to, and not others that have their names by now."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.control.identities import Identities
from pipeline.errors import PositionLostError


@dataclass(frozen=True, slots=True)
class KnownTopics:
    """The topics that a consumer's offsets belong to."""

    consumer: str
    identities: Identities

    def require(self, found: Identities) -> None:
        """PositionLostError when one of these is another topic of the same name."""
        for topic, one in found.items():
            known = self.identities.get(topic)
            if known is not None and known.differs(one):
                raise PositionLostError(
                    f"topic {topic} is not the one that the offsets of {self.consumer} belong to: that was {known},"
                    f" this is {one}. It was made anew, or KAFKA_BOOTSTRAP_SERVERS leads to another cluster",
                    hint="lead it back; when the former topic is gone for good, see Topic made anew in the runbook:"
                    f' pipeline lanes start-over {self.consumer} --reason "…"',
                )
