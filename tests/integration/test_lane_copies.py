"""Detached lanes whose records pass retention: copied to S3 before, fed from there, never passed over silently."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.control import copies, detached, requests
from pipeline.control.requests import Asked
from pipeline.domain.routing import partition_of
from pipeline.ports import Verb
from tests.integration.bridged import MERCHANTS, PARTITIONS, Bridged

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.integration

DAY = 24 * 3600
HEAVY = MERCHANTS[0]
HOME = partition_of(HEAVY, PARTITIONS)
NEIGHBOUR, LATE = [one for one in MERCHANTS[1:] if partition_of(one, PARTITIONS) == HOME][:2]


def send(bridged: Bridged, merchant: str, count: int, days_ago: float) -> None:
    """Records as they were published then."""
    published = round((time.time() - days_ago * DAY) * 1000)
    for number in range(count):
        bridged.producer.send(
            bridged.settings.datastream.topic,
            key=merchant.encode(),
            value=f"{merchant}:{number}".encode(),
            partition=HOME,
            timestamp_ms=published,
        )
    bridged.producer.flush(30)


def ask(
    bridged: Bridged, merchant: str, verb: Verb, offset: int | None = None, expected: int | None = None
) -> None:
    topic = bridged.settings.datastream.topic
    asked = Asked("audit", topic, HOME, merchant, verb, "a person", "because", offset, expected)
    [request] = requests.ask(bridged.database, [asked])

    def carried_out() -> bool:
        found = requests.outcome(bridged.database, request)
        assert found is not None
        assert found.refusal is None
        return found.finished

    assert wait_until(carried_out, 30)


def rows(bridged: Bridged) -> dict[str, detached.DetachedLane]:
    return {row.lane: row for row in detached.rows(bridged.database, "audit")}


def copied(bridged: Bridged, merchant: str) -> list[copies.Copy]:
    place = (bridged.settings.datastream.topic, HOME)
    return copies.listed(bridged.database, "audit", place, [merchant])


def objects(bridged: Bridged, s3_client: S3Client) -> list[str]:
    prefix = f"copies/{bridged.settings.deployment}/"
    found = s3_client.list_objects_v2(Bucket=bridged.settings.environment.s3_bucket, Prefix=prefix)
    return [entry["Key"] for entry in found.get("Contents", [])]


def accepted(bridged: Bridged, done: Callable[[], bool]) -> dict[str, list[int]]:
    """Accept until something is true: the offsets of each merchant, as they first came."""
    delivered: list[tuple[str, int]] = []

    def over() -> bool:
        delivered.extend(bridged.accept())
        return done()

    assert wait_until(over, 60)
    found: dict[str, list[int]] = {}
    for merchant, offset in dict.fromkeys(delivered):
        found.setdefault(merchant, []).append(offset)
    return found


def test_a_paused_lane_is_copied_before_its_records_are_gone_and_fed_from_the_copy(
    bridged: Bridged, kafka_admin: KafkaAdminClient, s3_client: S3Client
) -> None:
    # Mutants: nothing is copied; copies are served without their coverage being checked, and LATE loses in silence;
    # what lies in a copy between two lanes' ends is left out.
    with bridged.bridge() as bridge:
        ask(bridged, HEAVY, "pause")
        for _ in range(20):
            send(bridged, HEAVY, 100, days_ago=5)
            send(bridged, NEIGHBOUR, 5, days_ago=5)
        send(bridged, HEAVY, 100, days_ago=1)
        first = rows(bridged)[HEAVY].first
        assert first == 0
        found = accepted(bridged, lambda: bool(copied(bridged, HEAVY)))
        assert len(found[NEIGHBOUR]) == 100
        assert copied(bridged, HEAVY)[0].first == first
        assert objects(bridged, s3_client)
        assert bridge.poll() is None

        def alarmed() -> bool:
            metrics = bridged.metrics()
            age = float(metrics["detached_age_s"])
            return bool(metrics["aging_lanes"] == 1 and 4.9 * DAY < age < 5.1 * DAY)

        assert wait_until(alarmed, 20)
        end = copied(bridged, HEAVY)[-1].end
        ask(bridged, LATE, "pause")
        send(bridged, LATE, 10, days_ago=0)
        begin = end - 50
        kafka_admin.delete_records({TopicPartition(bridged.settings.datastream.topic, HOME): begin})
        ask(bridged, HEAVY, "resume")
        found = accepted(bridged, lambda: HEAVY not in rows(bridged))
        assert len(found[HEAVY]) == 2100
        assert found[HEAVY] == sorted(found[HEAVY])
        assert copied(bridged, HEAVY) == []


def test_what_passed_retention_uncopied_is_said_of_the_lane_and_a_person_decides(
    bridged: Bridged, kafka_admin: KafkaAdminClient
) -> None:
    # Mutant: CopiedRereader goes on in Kafka whether or not everything before is copied.
    with bridged.bridge(AWS_ENDPOINT_URL="http://127.0.0.1:1"):
        ask(bridged, HEAVY, "pause")
        ask(bridged, LATE, "pause")
        send(bridged, HEAVY, 10, days_ago=5)
        send(bridged, LATE, 10, days_ago=5)
        send(bridged, NEIGHBOUR, 5, days_ago=0)
        accepted(bridged, lambda: bool(bridged.metrics().get("copying_fails")))
        kafka_admin.delete_records({TopicPartition(bridged.settings.datastream.topic, HOME): 15})
        ask(bridged, HEAVY, "resume")
        ask(bridged, LATE, "resume")
        accepted(bridged, lambda: [row.state for row in rows(bridged).values()] == ["parked", "parked"])
        reason = (
            "passed retention before they were accepted: skip to 15, then snapshot what this merchant has"
        )
        assert {lane: row.reason for lane, row in rows(bridged).items()} == {
            HEAVY: f"offsets 0 to 14 {reason}",
            LATE: f"offsets 0 to 14 {reason}",
        }
        for merchant in (HEAVY, LATE):
            ask(bridged, merchant, "skip", 15, 0)
            ask(bridged, merchant, "release")
        found = accepted(bridged, lambda: not rows(bridged))
        assert found.get(LATE) == list(range(15, 20))
