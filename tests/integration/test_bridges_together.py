"""Several `pipeline bridge` processes of one consumer: they join, leave, die, stand still, and come back by name."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from devstack.process import wait_until
from pipeline.telemetry import heartbeats
from tests.integration.bridged import PARTITIONS, Bridged, require_order

pytestmark = pytest.mark.integration
PARTS = 2 * PARTITIONS  # of two topics


@contextmanager
def producing(bridged: Bridged) -> Iterator[list[int]]:
    """Records of every merchant, all the while; how many of each is in the list at the end."""
    produced = [0]
    stop = threading.Event()

    def produce() -> None:
        while not stop.wait(0.1):
            bridged.produce(1)
            produced[0] += 1

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield produced
    finally:
        stop.set()
        thread.join()


def holders(bridged: Bridged) -> dict[int, int]:
    """How many partitions each bridge holds that has beaten within 15 s, by its process number."""
    found = heartbeats(bridged.redis, bridged.settings.deployment)
    return {state.pid: int(state.metrics["partitions"]) for state in found if state.metrics["partitions"]}


def fences(bridged: Bridged) -> list[int]:
    """How often each partition was taken over."""
    with bridged.database.transaction() as connection:
        found = connection.execute("SELECT fence FROM fences ORDER BY topic, partition").fetchall()
    return [fence for (fence,) in found]


@pytest.mark.soak
def test_bridges_that_join_leave_die_and_stand_still_lose_nothing_and_keep_order(bridged: Bridged) -> None:
    # Mutant: what was taken away is still held (Holdings.reassign without revoked) and ADD does not look at fences.
    delivered: list[tuple[str, int]] = []

    def shared_by(*processes: subprocess.Popen[str]) -> bool:
        delivered.extend(bridged.accept())
        held = holders(bridged)
        return held.keys() == {process.pid for process in processes} and sum(held.values()) == PARTS

    def require_shared_by(*processes: subprocess.Popen[str]) -> None:
        assert wait_until(lambda: shared_by(*processes), 90)

    with ExitStack() as stack:
        with producing(bridged) as produced:
            first = stack.enter_context(bridged.bridge())
            require_shared_by(first)
            second = stack.enter_context(bridged.bridge())
            third = stack.enter_context(bridged.bridge())
            require_shared_by(first, second, third)
            first.send_signal(signal.SIGTERM)
            require_shared_by(second, third)
            second.kill()
            require_shared_by(third)
            fourth = stack.enter_context(bridged.bridge())
            require_shared_by(third, fourth)
            third.send_signal(signal.SIGSTOP)
            require_shared_by(fourth)
            third.send_signal(signal.SIGCONT)
            require_shared_by(third, fourth)
        delivered += bridged.accept_until_committed()
    require_order(delivered, produced[0])


def test_a_bridge_with_a_name_comes_back_to_its_share(bridged: Bridged) -> None:
    with bridged.bridge("--instance", "a") as first:
        assert wait_until(lambda: holders(bridged) == {first.pid: PARTS}, 60)
        with bridged.bridge("--instance", "b") as second:
            shared = {first.pid: PARTS // 2, second.pid: PARTS // 2}
            assert wait_until(lambda: holders(bridged) == shared, 60)
            assert sorted(fences(bridged)) == [1] * (PARTS // 2) + [2] * (PARTS // 2)
            first.kill()
            bridged.produce(5)
            with bridged.bridge("--instance", "a") as again:
                # Which partitions it gets is the group's leader's to say, who may have been the one that died.
                shared = {again.pid: PARTS // 2, second.pid: PARTS // 2}
                assert wait_until(lambda: holders(bridged) == shared, 60)
                require_order(bridged.accept_until_committed(), 5)


def test_a_second_bridge_of_the_same_name_is_refused(bridged: Bridged) -> None:
    # Mutant: only_one() that always yields: the second one throws the first one out.
    bridged.produce(5)
    with bridged.bridge("--instance", "a") as first:
        assert wait_until(lambda: holders(bridged) == {first.pid: PARTS}, 60)
        with bridged.bridge("--instance", "a") as second:
            assert second.wait(60) == 1
            assert second.stderr is not None
            assert "another process runs as instance a of group" in second.stderr.read()
        require_order(bridged.accept_until_committed(), 5)
        assert first.poll() is None


def test_a_topic_that_deletes_what_is_still_needed_is_refused(
    bridged: Bridged, kafka_admin: KafkaAdminClient
) -> None:
    # Mutant: `pipeline bridge` without require_fit().
    topic = bridged.settings.datastream.topic
    settings = {"retention.bytes": "1000000", "retention.ms": "3600000"}
    kafka_admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)])
    with bridged.bridge() as refused:
        assert refused.wait(40) == 1
        assert refused.stderr is not None
        said = refused.stderr.read()
    assert f"topic {topic}: retention.bytes is 1000000" in said
    assert f"--entity-name {topic} --add-config retention.bytes=-1" in said
    assert f"topic {topic} keeps records for 1 h" in said
    assert "Traceback" not in said
