"""`bench capture` on real services, small: every event of its backlog is relayed, and every commit is seen outside."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench.capture import commits, draining
from bench.capture.site import CaptureSite
from bench.load import Changes
from tests.conftest import Stack, unique
from tests.integration.kafka_topic import read_topic

ROWS = 1000


@pytest.fixture
def site(stack: Stack, tmp_path: Path) -> Iterator[CaptureSite]:
    """A site that no bench and no other test shares."""
    name = unique("bench")

    class Small(CaptureSite):
        NAME = name
        TOML = CaptureSite.TOML.replace(CaptureSite.NAME, name)

    made = Small(tmp_path, stack.variables)
    try:
        made.create()
        yield made
    finally:
        made.destroy()


def _silent(*_: object) -> None:
    pass


def test_a_backlog_is_relayed_by_each_client_and_commits_are_seen(
    site: CaptureSite, variables: Mapping[str, str]
) -> None:
    filled = draining.fill(site, Changes(seed=1), ROWS, ROWS, _silent)
    drained = draining.measure(site, filled, 1, ("none", "kafka-python"), _silent)
    assert [one.client for one in drained] == ["none", "kafka-python"]
    assert all(one.rows == ROWS and one.seconds > 0 for one in drained)
    # A discarding relay that published, or a backlog that was not rewound, would make other than this.
    assert len(read_topic(variables["KAFKA_BOOTSTRAP_SERVERS"], site.topic)) == 2 * ROWS
    seen = commits.measure(site, 1.0, _silent)
    assert len(seen.ms) == 180  # of 200 transactions, a tenth to warm up with
    assert min(seen.ms) > 0
