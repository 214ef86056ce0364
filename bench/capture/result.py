"""Everything that ``pipeline bench capture`` measures, and the figures it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from bench.capture.commits import Commits
from bench.capture.draining import RELAY, Drained
from bench.capture.site import Client
from bench.capture.snapshots import Copied
from bench.capture.standby import Idle
from bench.capture.tables import BY_ROW, BY_STATEMENT, JSONTRIGA
from bench.capture.writers import Writers

PARTS = ("writers", "relay", "commits", "snapshot", "standby", "memory")
RATES: dict[str, Client] = {
    "relay_events_per_s": "none",
    "relay_with_kafka_events_per_s": "kafka-python",
    "relay_with_confluent_events_per_s": "confluent-kafka",
}


@dataclass(slots=True)
class Result:
    """What was measured; a part that was left out is empty. `peaks`: bytes by rows of the transaction."""

    image: float = 0.0
    writers: Writers = field(default_factory=Writers)
    drained: list[Drained] = field(default_factory=list)
    commits: Commits | None = None
    copied: list[Copied] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)
    idle: Idle | None = None
    peaks: dict[int, int] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """What ``--json`` writes: medians over the rounds, of what was measured."""
        return {**self._relay(), **self._commits(), **self._writers(), **self._rest()}

    def of(self, client: Client, what: Callable[[Drained], float]) -> list[float]:
        """A figure of each round with this client."""
        return [what(one) for one in self.drained if one.client == client]

    @property
    def clients(self) -> list[Client]:
        """Those that were measured."""
        return [client for client in RATES.values() if any(one.client == client for one in self.drained)]

    @property
    def memory_growth(self) -> float:
        """How much higher the peak was on the largest transaction than on the smallest: 0.1 is 10 %."""
        return self.peaks[max(self.peaks)] / self.peaks[min(self.peaks)] - 1

    def _relay(self) -> dict[str, float]:
        found = {
            name: round(median(self.of(client, lambda one: one.events_per_s)), 1)
            for name, client in RATES.items()
            if client in self.clients
        }
        if "kafka-python" in self.clients:
            cpu = self.of("kafka-python", lambda one: one.cpu_us(RELAY))
            found["relay_cpu_us_per_event"] = round(median(cpu), 1)
        return found

    def _commits(self) -> dict[str, float]:
        if self.commits is None:
            return {}
        return {
            f"commit_to_kafka_p{percent}_ms": round(self.commits.quantile(percent), 2) for percent in (50, 99)
        }

    def _writers(self) -> dict[str, float]:
        writers = self.writers
        if not writers.rates:
            return {}
        return {
            "writer_insert_ratio": round(writers.ratio("insert", BY_ROW), 3),
            "writer_update_ratio": round(writers.ratio("update", BY_ROW), 3),
            "writer_bulk_ratio": round(writers.ratio("bulk", BY_STATEMENT), 3),
            "writer_vs_jsontriga_ratio": round(writers.ratio("insert", BY_ROW, than=JSONTRIGA), 3),
        }

    def _rest(self) -> dict[str, float]:
        found = {}
        if self.copied:
            found["snapshot_rows_per_s"] = round(median(one.rows_per_s for one in self.copied), 1)
        if self.peaks:
            found["relay_memory_growth"] = round(self.memory_growth, 4)
        return found
