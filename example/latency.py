"""Commit to visible, measured from outside: the client's COMMIT to the first sight of the row by a poll.

No stamp that travels with the event is used. A watch reads the probe log that traffic writes and looks for the rows in
one sink until each is seen.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from elasticsearch import Elasticsearch

from example.fresh import warehouse
from pipeline.settings import Settings

Look = Callable[[str, Sequence[str]], set[str]]
"""(type, request ids) -> those of them that the sink shows now."""


@dataclass
class Watch:
    """Looks for probed rows of one sink from a thread of its own, every `pause` seconds."""

    log: Path
    look: Look
    pause: float
    seconds: list[float] = field(default_factory=list)
    _waiting: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    _stop: threading.Event = field(default_factory=threading.Event)
    _position: int = 0
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")
        self._thread.start()

    def outstanding(self) -> int:
        """Rows committed and not yet seen."""
        return sum(map(len, self._waiting.values()))

    def finish(self) -> None:
        """Stop looking; raises what the watch has met."""
        self._stop.set()
        self._thread.join(timeout=30)
        if self.failure is not None:
            raise self.failure

    def quantile(self, percent: int) -> float:
        """The percentile of the latencies in seconds; nan without two of them."""
        return quantiles(self.seconds, n=100)[percent - 1] if len(self.seconds) > 1 else float("nan")

    def _run(self) -> None:
        try:
            while not self._stop.wait(self.pause):
                self._read()
                self._glance()
        except Exception as error:  # noqa: BLE001  handed to whoever calls finish
            self.failure = error

    def _read(self) -> None:
        if not self.log.exists():
            return
        with self.log.open() as file:
            file.seek(self._position)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._position += len(whole.encode())
        for line in whole.splitlines():
            probe = json.loads(line)
            self._waiting[probe["type"]][probe["request_id"]] = probe["monotonic"]

    def _glance(self) -> None:
        for type_, waiting in self._waiting.items():
            if waiting:
                seen = self.look(type_, list(waiting)[:500])
                now = time.monotonic()
                self.seconds += [now - waiting.pop(request) for request in seen]


def search_watch(settings: Settings, log: Path) -> Watch:
    """Looks by a search, as a reader of the index does, every 25 ms."""
    client = Elasticsearch(settings.environment.elasticsearch_url.get_secret_value())

    def look(type_: str, requests: Sequence[str]) -> set[str]:
        answer = client.search(
            index=f"{settings.deployment}-{type_}-read",
            query={"terms": {"request_id": list(requests)}},
            size=len(requests),
            source={"includes": ["request_id"]},
            track_total_hits=False,
            filter_path="hits.hits._source",
        )
        hits: Sequence[Mapping[str, Mapping[str, str]]] = answer.get("hits", {}).get("hits", [])
        return {hit["_source"]["request_id"] for hit in hits}

    return Watch(log, look, pause=0.025)


def warehouse_watch(settings: Settings, log: Path) -> Watch:
    """Looks into the live views, as an analyst does, every half second."""
    session = warehouse(settings)
    session.autocommit = True
    cursor = session.cursor()

    def look(type_: str, requests: Sequence[str]) -> set[str]:
        places = ", ".join(["%s"] * len(requests))
        cursor.execute(
            f'SELECT request_id FROM "{settings.warehouse_schema}"."{type_}_live" WHERE request_id IN ({places})',  # noqa: S608  names are checked by settings, values are bound
            list(requests),
        )
        return {str(row[0]) for row in cursor.fetchall()}

    return Watch(log, look, pause=0.5)
