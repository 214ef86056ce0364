"""A client without a thread of its own, on the real broker: it stays in its group while its owner does something else."""

import time
from collections.abc import Callable

import pytest

from devstack.process import wait_until
from pipeline.bridge.client_settings import MEMBERSHIP, READING
from pipeline.bridge.consumer import GroupMember
from pipeline.bridge.topics import Topics
from pipeline.ports import Committed

pytestmark = pytest.mark.integration


def test_a_member_whose_owner_is_busy_for_longer_than_a_session_is_a_member_still(
    kafka_bootstrap: str, kafka_topic: Callable[..., str]
) -> None:
    # Mutant: no thread stands in. The broker has given its partitions away, and refuses the commit.
    topic = kafka_topic(2)
    options = {**READING, "auto_offset_reset": "earliest"}
    member = GroupMember(kafka_bootstrap, Topics((topic,), 2), topic, options=options)
    given: set[int] = set()

    def is_given() -> bool:
        given.update(member.poll(0.1).assigned)
        return given == {0, 1}

    try:
        assert wait_until(is_given, 20)
        time.sleep(MEMBERSHIP["session_timeout_ms"] / 1000 + 1.5)
        member.commit({0: Committed(0), 1: Committed(0)})
        assert not member.poll(0.1).revoked
    finally:
        member.close()
