"""Whose fault a failure is, on real workers: what parks a lane, and what parks nobody."""

from __future__ import annotations

import pytest

from tests.fakes.workers import Workshop, Workshops, wait

pytestmark = pytest.mark.integration
MERCHANTS = [str(n) for n in range(8)]


def parked(shop: Workshop) -> list[str]:
    return [lane.merchant for lane in shop.store.overview().failing if lane.parked]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_an_event_that_kills_its_process_parks_its_own_lane_only(workshop: Workshops, pool: str) -> None:
    # Mutants: groups do not shrink, and whoever was in the turn is at fault; a lane whose process died never is.
    shop = workshop(group=4, lease="1s", max_failures=2)
    shop.mark("killers", "7")
    shop.feed(MERCHANTS)
    worker = shop.start(pool=pool)

    def is_parked() -> bool:
        nonlocal worker
        if not worker.alive():
            worker = shop.start(pool=pool)
        shop.feed(MERCHANTS[:7])  # somebody else is accepted between its failures
        return bool(parked(shop))

    wait(is_parked, "it is parked", seconds=90)
    if not worker.alive():
        shop.start(pool=pool)
    wait(lambda: shop.complete("7"), "the others have everything")
    assert parked(shop) == ["7"]
    assert shop.store.lengths(["7"]) == {"7": 1}
    sizes = [len(merchants) for _, merchants in shop.turns() if "7" in merchants]
    assert all(size <= max(1, 4 >> failures) for failures, size in enumerate(sizes)), sizes
    shop.in_order()


def test_a_sink_that_is_away_parks_nobody(workshop: Workshops) -> None:
    # Mutant: a failure counts whether or not others are accepted.
    shop = workshop(group=1, max_failures=2)
    shop.set("broken", 1)
    shop.start()
    shop.feed(MERCHANTS[:3])

    def everyone_failed() -> bool:
        failing = shop.store.overview().failing
        return len(failing) == 3 and min(lane.failures for lane in failing) > 3

    wait(everyone_failed, "each has failed four times")
    assert parked(shop) == []
    shop.set("broken", "")
    shop.drained()
    assert shop.store.overview().failing_count == 0
    shop.in_order()


def test_a_handler_that_fails_for_one_merchant_parks_him_after_max_failures(workshop: Workshops) -> None:
    shop = workshop(group=5, max_failures=3)
    shop.mark("poison", "7")
    shop.start()

    def is_parked() -> bool:
        shop.feed(MERCHANTS)
        return bool(parked(shop))

    wait(is_parked, "it is parked")
    wait(lambda: shop.complete("7"), "the others have everything")
    (lane,) = shop.store.overview().failing
    assert (lane.merchant, lane.reason, lane.failures, lane.oldest) == ("7", "poison", 3, shop.fed["7"][0])


def test_a_handler_parks_a_lane_at_once(workshop: Workshops) -> None:
    shop = workshop(group=20)
    shop.mark("hopeless", "7")
    shop.start()
    shop.feed(MERCHANTS)
    wait(lambda: parked(shop) == ["7"], "it is parked")
    shop.feed(MERCHANTS)
    wait(lambda: shop.complete("7"), "the others have everything")
    assert sum("7" in merchants for _, merchants in shop.turns()) == 1
    assert shop.store.overview().failing[0].reason == "hopeless"
