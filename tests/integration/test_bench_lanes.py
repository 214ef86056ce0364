"""`bench lanes` on real services, small: everything is drained, everything sent is seen to arrive beside a poison, and what a
bridge need not work on is no burst."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench.lanes import costs, troubles
from bench.lanes.draining import await_accepted
from bench.lanes.events import Envelopes
from bench.lanes.publishing import publish as publish_all
from bench.lanes.site import SINGLE, WATCHED, LaneSite
from bench.lanes.troubles import Lengths
from pipeline.lanes.store import RedisLaneStore, connect, namespace_of
from tests.conftest import Stack, unique


@pytest.fixture
def site(stack: Stack, tmp_path: Path) -> Iterator[LaneSite]:
    """A site that no bench and no other test shares."""
    name = unique("bench")

    class Small(LaneSite):
        NAME = name
        TOML = LaneSite.TOML.replace(LaneSite.NAME, name)

    made = Small(tmp_path, stack.variables)
    try:
        made.create()
        yield made
    finally:
        made.destroy()


def _silent(*_: object) -> None:
    pass


def test_backlogs_are_drained_by_groups_and_one_by_one(site: LaneSite) -> None:
    found = costs.measure(site, 10, 500, 100, _silent)
    assert [(cost.merchants, cost.group, cost.drained.events) for cost in found] == [
        (10, 50, 500),
        (10, 1, 100),
    ]
    with closing(site.view(SINGLE)) as view:
        assert view.committed() == view.ends()


def test_records_that_a_bridge_drops_as_doubles_end_the_run(site: LaneSite) -> None:
    site.start_worker(SINGLE)
    site.start_bridge(SINGLE)

    def publish(source: str) -> None:
        envelopes = Envelopes(source)
        publish_all(site.bootstrap, site.topic, [envelopes.of("m1") for _ in range(10)], _silent)
        end = sum(site.end_offsets().values())
        await_accepted(site, SINGLE, end, end, _silent)
        site.require_no_doubles()

    publish("one")
    publish("another")
    with pytest.raises(RuntimeError, match="dropped 10 records as doubles"):
        publish("one")


def test_everything_sent_is_seen_to_arrive_beside_a_poison(site: LaneSite) -> None:
    found = troubles.measure(site, "poison", 50, Lengths(seconds=1.0, flood=1.0, burst=10, rounds=1), _silent)
    assert [phase.trouble for phase in found.phases] == [False, True, False]
    assert [len(phase.samples) for phase in found.phases] == [300, 300, 300]
    assert min(sample.ms for phase in found.phases for sample in phase.samples) > 0
    # The poisoned merchant's events came and were refused, or nobody was beside any trouble.
    with connect(site.redis_url) as client:
        failing = RedisLaneStore(client, namespace_of(site.NAME, WATCHED[50])).overview().failing
    assert [(lane.merchant, lane.failures > 0) for lane in failing] == [("poison1", True)]
