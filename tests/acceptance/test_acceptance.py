"""The whole way on real services, with everything dying on it."""

from collections.abc import Callable

import pytest

from tests.acceptance import ledger
from tests.acceptance.deployment import SOURCES, Deployment
from tests.acceptance.order import repeats, violations
from tests.acceptance.scenarios import ALL
from tests.acceptance.writer import Writer

pytestmark = pytest.mark.acceptance


def test_nothing_is_lost_reordered_or_doubled_whatever_dies(deployment: Callable[..., Deployment]) -> None:
    one = deployment()
    writer = Writer(one, seed=20261122)
    for source in SOURCES:
        writer.write(source, 200)  # rows that are older than the pipeline
    one.install()
    since = writer.steps
    one.supervisor.start_all()
    writer.start()
    for source in SOURCES:
        one.run("capture", "snapshot", source)
    for scenario in ALL:
        scenario(one)
    writer.stop()

    report = one.verify()
    assert report["ok"], report
    records = one.records()
    assert violations(records, since, writer.steps) == []
    assert ledger.doubled(one) == []
    assert one.supervisor.stop(timeout=10) == [], "these did not end within 10 s of SIGTERM"
    print(
        f"{sum(writer.steps.values())} steps, {len(records)} deliveries, {repeats(records)} of them repeats"
    )
