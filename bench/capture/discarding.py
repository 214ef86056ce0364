"""``python -m bench.capture.discarding SOURCE``: ``pipeline capture run`` with a Kafka client that throws records away."""

from __future__ import annotations

import sys

from pipeline.cli.relaying import relay


class Discarding:
    """See Producer: every record counts as acknowledged at once."""

    records = size = 0

    def send(self, topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        """See Producer."""

    def push(self) -> None:
        """See Producer."""

    def wait(self, seconds: float) -> None:
        """See Producer."""

    def close(self) -> None:
        """See Producer."""


if __name__ == "__main__":
    relay(sys.argv[1], Discarding)
