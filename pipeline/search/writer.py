"""Turns into bulks: what each lane's events become, and what each lane is told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from elasticsearch import Elasticsearch

from pipeline import failpoints
from pipeline.consumer import Lane, SinkUnavailableError, Turn
from pipeline.search.bulk import post
from pipeline.search.client import connect
from pipeline.search.documents import Bulk, Change, bulk_lines, bulks, newest
from pipeline.search.naming import write_alias
from pipeline.search.outcomes import Verdict
from pipeline.search.refresh import RedisGate, Refresher, refresh_indices
from pipeline.settings import Settings, seconds

_DOCUMENTS, _BYTES = 1000, 8 * 1024 * 1024
_NO_OBJECT = Verdict("rejected", "the row image is no JSON object")
_Refused = list[tuple[Change, Verdict]]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a turn's documents; events superseded within the turn are in none of the numbers."""

    applied: int
    stale: int
    rejected: int


class Writer:
    """Writes turns into the indices of one deployment. Threads may share it; a forked process needs its own."""

    def __init__(self, client: Elasticsearch, deployment: str, refresher: Refresher) -> None:
        self._client = client
        self._deployment = deployment
        self._refresher = refresher

    def write(self, turn: Turn) -> Written:
        """Write the newest event of each row and decide every lane.

        Raises SinkUnavailableError when Elasticsearch as a whole, or one of the indices, does not accept: nothing is
        decided then, and writing the same turn again is safe.
        """
        counts: Counter[str] = Counter()
        refused: defaultdict[str, dict[int, Verdict]] = defaultdict(dict)
        changes = newest(turn.lanes, refused)
        while changes:
            rejected = set()
            for change, said in self._send(changes, counts):
                refused[change.lane.merchant][change.position] = said
                if said.kind == "rejected":
                    rejected.add(change.id)
            # A rejected event may have hidden an older one of its row, which is the row's newest state now.
            left = newest(turn.lanes, refused) if rejected else []
            changes = [change for change in left if change.id in rejected]
        for lane in turn:
            _decide(lane, refused.get(lane.merchant, {}))
        return Written(counts["applied"], counts["stale"], sum(len(lane.rejections) for lane in turn))

    def close(self) -> None:
        """Refresh what is still asked for, and close the connections."""
        self._refresher.close()
        self._client.close()

    def _send(self, changes: Sequence[Change], counts: Counter[str]) -> _Refused:
        refused: _Refused = []
        for bulk in bulks(self._lines(changes, refused), documents=_DOCUMENTS, size=_BYTES):
            for change, said in zip(bulk.changes, self._post(bulk), strict=True):
                counts[said.kind] += 1
                if said.kind not in ("applied", "stale"):
                    refused.append((change, said))
        unavailable = next((said for _, said in refused if said.kind == "unavailable"), None)
        if unavailable:
            raise SinkUnavailableError(f"Elasticsearch, writing: {unavailable.reason}")
        return refused

    def _lines(self, changes: Sequence[Change], refused: _Refused) -> Iterator[tuple[Change, bytes]]:
        for change in changes:
            lines = bulk_lines(self._deployment, change)
            if lines is None:
                refused.append((change, _NO_OBJECT))
            else:
                yield change, lines

    def _post(self, bulk: Bulk) -> list[Verdict]:
        answer = post(self._client, bulk.body, len(bulk.changes))
        failpoints.passes("search.bulked")
        types = {change.event.type for change in bulk.changes}
        self._refresher.request([write_alias(self._deployment, type_) for type_ in types])
        return answer


def _decide(lane: Lane, refused: dict[int, Verdict]) -> None:
    failed = next((said for said in refused.values() if said.kind == "failed"), None)
    if failed:
        lane.retry(failed.reason)
        return
    for position in sorted(refused):
        lane.reject(position, refused[position].reason)
    lane.done()


def open_writer(settings: Settings) -> Writer:
    """A writer with its own connections, as the settings say."""
    client = connect(settings.environment.elasticsearch_url.get_secret_value())
    gate = RedisGate.connect(settings.environment.redis_url.get_secret_value(), settings.deployment)
    interval = seconds(settings.configuration.search.refresh_interval)
    refresher = Refresher(lambda names: refresh_indices(client, names), gate, interval)
    return Writer(client, settings.deployment, refresher)
