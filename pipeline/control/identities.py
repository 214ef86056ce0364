"""Which topics a consumer's offsets belong to: a name says nothing, another topic may have it by now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.control import actions, fences
from pipeline.control.database import ControlDatabase
from pipeline.control.fences import Place


@dataclass(frozen=True, slots=True)
class Identity:
    """A topic's id and its cluster's, as Kafka tells them; None: it does not."""

    cluster: str | None
    id: str | None

    def differs(self, other: Identity) -> bool:
        """True when these are two topics for certain: by their ids, or else by their clusters'."""
        for mine, others in ((self.id, other.id), (self.cluster, other.cluster)):
            if mine is not None and others is not None:
                return mine != others
        return False

    def __str__(self) -> str:
        return f"{self.id or 'without id'} in cluster {self.cluster or 'unknown'}"


Identities = Mapping[str, Identity]
"""By topic."""


def known(database: ControlDatabase, consumer: str) -> dict[str, Identity]:
    """The topics that the consumer's offsets belong to, as far as they have been noted."""
    with database.transaction() as connection:
        found = connection.execute(
            "SELECT topic, cluster, id FROM topic_identities WHERE consumer = %s", (consumer,)
        ).fetchall()
    return {topic: Identity(cluster, id_) for topic, cluster, id_ in found}


def note(database: ControlDatabase, consumer: str, found: Identities) -> dict[str, Identity]:
    """Note these for topics of which nothing is known yet, and what was not told before; returns what is known now."""
    with database.transaction() as connection:
        for topic, one in sorted(found.items()):
            connection.execute(_NOTE, (consumer, topic, one.cluster, one.id))
    return known(database, consumer)


# An id is noted later only in the cluster where there was none: brokers give ids to old topics when they are upgraded.
_NOTE = """
INSERT INTO topic_identities AS known (consumer, topic, cluster, id) VALUES (%s, %s, %s, %s)
ON CONFLICT (consumer, topic) DO UPDATE SET id = EXCLUDED.id, noted_at = clock_timestamp()
 WHERE known.id IS NULL AND EXCLUDED.id IS NOT NULL AND known.cluster IS NOT DISTINCT FROM EXCLUDED.cluster
"""


def start_over(
    database: ControlDatabase,
    consumer: str,
    places: list[Place],
    found: Identities,
    *,
    actor: str,
    reason: str,
) -> int:
    """From now on the consumer's offsets belong to these topics: what is known of the former ones goes.

    Events that were set aside keep their payload, under the former topic's name and the time. Whoever still holds a
    partition can write nothing about it any more. Returns how many lanes were detached.
    """
    topics = list(found)
    with database.transaction() as connection:
        fences.draw(connection, consumer, places)
        gone = {name: connection.execute(query, (consumer, topics)).rowcount for name, query in _GONE.items()}
        connection.execute("DELETE FROM sweep_runs WHERE consumer = %s", (consumer,))
        former = f" until {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        connection.execute(
            "UPDATE rejected SET topic = topic || %s WHERE consumer = %s AND topic = ANY(%s)",
            (former, consumer, topics),
        )
        for topic, one in found.items():
            connection.execute(
                "INSERT INTO topic_identities (consumer, topic, cluster, id) VALUES (%s, %s, %s, %s)",
                (consumer, topic, one.cluster, one.id),
            )
        details = {**gone, "topics": {topic: str(one) for topic, one in found.items()}}
        actions.write(
            connection, actor=actor, verb="lanes.start-over", subject=consumer, reason=reason, details=details
        )
    return gone["detached"]


_GONE = {
    "detached": "DELETE FROM detached WHERE consumer = %s AND topic = ANY(%s)",
    "requests": "UPDATE lane_requests SET finished_at = clock_timestamp(), refusal = 'the consumer starts over'"
    " WHERE consumer = %s AND topic = ANY(%s) AND finished_at IS NULL",
    "waits": "DELETE FROM sweep_waits WHERE consumer = %s AND topic = ANY(%s)",
    "passages": "DELETE FROM sweep_passages WHERE consumer = %s AND topic = ANY(%s)",
    "identities": "DELETE FROM topic_identities WHERE consumer = %s AND topic = ANY(%s)",
}
