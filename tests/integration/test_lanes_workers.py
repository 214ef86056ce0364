"""Real workers on real lanes: what dies, stops or fails, each merchant's events arrive all and in order."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from devstack.private import own_site, started
from devstack.redis import Redis
from pipeline.control import rejected
from pipeline.control.database import ControlDatabase, migrate
from pipeline.errors import StoreFullError
from pipeline.lanes.store import namespace_of
from pipeline.ports import Append, Tenure
from tests.conftest import unique
from tests.fakes.workers import CONSUMER, Workshop, Workshops, wait

pytestmark = pytest.mark.integration
MERCHANTS = [str(n) for n in range(12)]


def test_killed_workers_lose_nothing_and_keep_the_order(workshop: Workshops) -> None:
    # Mutant: no lease (a dead worker's lanes stay claimed); no token check (a late outcome trims too much).
    shop = workshop(lease="1s")
    shop.set("delay", 0.05)
    victims = [shop.start(), shop.start()]
    dice = random.Random(7)
    for _ in range(3):
        shop.feed(MERCHANTS, each=10)
        begun = len(shop.turns())
        wait(lambda begun=begun: len(shop.turns()) > begun + 1, "turns are begun")  # type: ignore[misc]
        victim = victims.pop(dice.randrange(2))
        victim.kill()
        victims.append(shop.start())
    shop.drained()
    shop.in_order()


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_other_pools_keep_the_order_too(workshop: Workshops, pool: str) -> None:
    shop = workshop(lease="1s")
    shop.set("delay", 0.05)
    shop.feed(MERCHANTS, each=10)
    first = shop.start(pool=pool)
    wait(lambda: len(shop.turns()) > 1, "a turn is begun")
    first.kill()
    shop.start(pool=pool)
    shop.feed(MERCHANTS, each=10)
    shop.drained()
    shop.in_order()


def test_a_killed_pool_process_counts_against_its_turn_only(workshop: Workshops) -> None:
    shop = workshop(lease="60s")
    worker = shop.start(pool="prefork")
    shop.mark("killers", "7")
    shop.feed(MERCHANTS, each=3)
    wait(lambda: shop.complete("7"), "all others are accepted")
    wait(lambda: _failing(shop) == ["7"], "only the killer is failing")
    assert worker.alive()
    shop.unmark("killers")
    shop.drained()
    shop.in_order()


def test_a_stopped_worker_is_refused_when_it_wakes(workshop: Workshops) -> None:
    # Mutant: no token check.
    shop = workshop(lease="1s", group=20)
    shop.set("delay", 0.3)
    zombie = shop.start(concurrency=1)
    shop.feed(MERCHANTS, each=2)
    wait(lambda: len(shop.turns()) == 1, "a turn is begun")
    zombie.signal(signal.SIGSTOP)
    shop.set("delay", 0)
    shop.start()
    shop.feed(MERCHANTS, each=2)
    shop.drained()
    zombie.signal(signal.SIGCONT)
    wait(lambda: shop.tally("refused") > 0, "its outcomes are refused")
    shop.feed(MERCHANTS)
    shop.drained()
    shop.in_order()


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_long_turn_keeps_its_lanes(workshop: Workshops, pool: str) -> None:
    # Mutant: leases not renewed (or renewed by the worker's loop, which solo blocks).
    shop = workshop(lease="600ms")
    shop.set("delay", 2)
    shop.start(pool=pool)
    shop.feed(["6"])
    wait(lambda: len(shop.turns()) == 1, "the turn is begun")
    shop.start()
    shop.drained()
    assert len(shop.turns()) == 1


def test_a_turn_that_takes_too_long_loses_its_lanes(workshop: Workshops) -> None:
    # Mutant: no turn_limit (a hung sink call holds its merchants for ever).
    shop = workshop(lease="600ms", turn_limit="1s")
    shop.set("delay", 20)
    shop.start()
    shop.feed(["6"])
    wait(lambda: len(shop.turns()) == 1, "the turn hangs")
    shop.set("delay", 0)
    shop.start()
    shop.drained()
    assert [merchants for _, merchants in shop.turns()] == [["6"], ["6"]]


def test_malformed_records_are_set_aside_before_they_are_acknowledged(
    workshop: Workshops, control_url: str
) -> None:
    # Mutant: acknowledged before stored: the worker that dies between loses the record.
    database = ControlDatabase(control_url)
    migrate(database)
    shop = workshop(environment={"CONTROL_DATABASE_URL": control_url}, lease="1s")
    dying = shop.start(concurrency=1, PIPELINE_FAILPOINTS="turn.rejected_stored:1")
    shop.feed(["6"])
    shop.feed_raw("6", b"{", b'{"e":2}')
    wait(lambda: not dying.alive(), "it died after storing")
    shop.start()
    wait(shop.empty, "the lane goes on")
    listed = rejected.listed(database, CONSUMER)
    assert sorted((one.offset, one.merchant) for one in listed) == [(1, "6"), (2, "6")]
    assert all("envelope" in one.reason for one in listed)
    wait(lambda: shop.tally("rejected") == 2, "they are counted")
    database.close()


def test_what_a_snapshot_read_is_set_aside_under_its_own_topic(workshop: Workshops, control_url: str) -> None:
    # Mutant: the topic of changes for all: the row would take the place of a change with the same offset, or find it taken.
    database = ControlDatabase(control_url)
    migrate(database)
    shop = workshop(environment={"CONTROL_DATABASE_URL": control_url})
    shop.start()
    tenures, lanes = {5: Tenure(1, 0), 17: Tenure(1, 0)}, ["6", "s.6"]
    changes, rows = Append("6", 5, None, [3], [b"{change"]), Append("s.6", 17, None, [3], [b"{row"])
    shop.store.add(shop.store.epoch(), tenures, [changes, rows])
    wait(lambda: sum(shop.store.lengths(lanes).values()) == 0, "both lanes go on")
    listed = rejected.listed(database, CONSUMER)
    assert sorted((one.topic, one.partition, one.offset) for one in listed) == [
        ("datastream", 5, 3),
        ("datastream.snapshot", 5, 3),
    ]
    database.close()


@pytest.mark.parametrize(
    ("handler", "problem"),
    [("tests.fakes.nothing:record", "cannot be imported"), ("tests.fakes.recording:nothing", "no function")],
)
def test_a_handler_that_is_not_there_is_said(workshop: Workshops, handler: str, problem: str) -> None:
    shop = workshop()
    log = shop.fails_to_start(handler)
    assert f"consumers.record.handler: {handler.partition(':')[0]}" in log
    assert problem in log


def test_sigterm_finishes_what_runs_and_gives_back_what_waits(workshop: Workshops) -> None:
    # Mutant: unstarted turns not released (they would come back a minute later, counted as failures).
    shop = workshop(lease="60s", group=1)
    shop.set("delay", 6)
    worker = shop.start("-Q", CONSUMER, "--prefetch-multiplier", "3", concurrency=1)
    shop.feed(MERCHANTS[:3])
    wait(lambda: shop.store.overview().claimed == 3, "one turn runs, two wait")
    os.kill(worker.pid, signal.SIGTERM)
    wait(lambda: shop.store.overview().claimed == 1, "the two are back", seconds=5)
    assert worker.process.wait(10) == 0
    overview = shop.store.overview()
    assert (overview.claimed, overview.ready, overview.failing_count) == (0, 2, 0)
    assert len(shop.turns()) == 1
    assert sum(map(len, shop.delivered().values())) == 1
    shop.set("delay", 0)
    shop.start()
    shop.drained()


@pytest.mark.parametrize("pool", ["threads", "prefork", "solo"])
def test_sigterm_to_a_whole_group_and_sigkill_after_it_lose_nothing(workshop: Workshops, pool: str) -> None:
    # What a platform does: pool processes get the signal too, and die of it.
    shop = workshop(lease="1s", group=2)
    shop.set("delay", 1)
    first = shop.start(pool=pool)
    shop.feed(MERCHANTS, each=3)
    wait(lambda: len(shop.turns()) > 1, "turns are begun")
    first.signal(signal.SIGTERM)
    shop.start(pool=pool)
    first.kill()
    shop.set("delay", 0)
    shop.drained()
    shop.in_order()


def test_a_turn_that_ends_after_sigterm_is_acknowledged_at_once(workshop: Workshops) -> None:
    # Mutant: outcomes wait for the last turn, which a SIGKILL may end.
    shop = workshop(lease="60s", group=1)
    worker = shop.start()
    for n, delay in enumerate((60, 3)):
        shop.set("delay", delay)
        shop.feed([str(n)])
        wait(lambda n=n: len(shop.turns()) > n, "the turn is begun")  # type: ignore[misc]
    os.kill(worker.pid, signal.SIGTERM)
    wait(lambda: shop.store.lengths("01") == {"0": 1, "1": 0}, "the short one is acknowledged")
    assert worker.alive()


def test_an_idle_worker_ends_at_once(workshop: Workshops) -> None:
    shop = workshop()
    worker = shop.start()
    shop.feed(MERCHANTS)
    shop.drained()
    assert worker.terminate() == 0


def test_a_worker_that_starts_while_redis_is_full_drains_it(redis_url: str, tmp_path: Path) -> None:
    # Mutant: a binding that Redis refuses ends the consumer: whatever starts then drains nothing, and nothing ends that.
    with own_site(tmp_path / "stack") as place:
        own = Redis(place)
        started(own)
        url = f"redis://:{place.passwords.redis}@127.0.0.1:{own.port}/0"
        shop = Workshop(url, unique("full"), tmp_path, sink_url=redis_url, beats=False)
        shop.feed(MERCHANTS, each=10)
        shop.client.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            shop.feed(MERCHANTS[:1])
        shop.start()
        wait(shop.empty, "the lanes are empty")
        shop.close()


def test_a_poisoned_lane_waits_apart(workshop: Workshops) -> None:
    # Mutant: claim joins failing lanes.
    shop = workshop(group=20)
    shop.mark("poison", "7")
    shop.start()
    shop.feed(MERCHANTS, each=3)
    wait(lambda: shop.complete("7"), "all others are accepted")
    wait(lambda: sum("7" in merchants for _, merchants in shop.turns()) > 2, "it is tried again")
    shop.feed(MERCHANTS, each=3)
    wait(lambda: shop.complete("7"), "the others flow on")
    tried = [merchants for _, merchants in shop.turns() if "7" in merchants]
    assert tried[1:] == [["7"]] * (len(tried) - 1)
    (failing,) = shop.store.overview().failing
    assert (failing.merchant, failing.reason, failing.oldest) == ("7", "poison", shop.fed["7"][0])
    shop.unmark("poison")
    shop.drained()
    shop.in_order()
    assert shop.store.overview().failing_count == 0


def test_a_sink_that_is_down_blames_nobody(workshop: Workshops) -> None:
    shop = workshop(group=2)
    shop.set("down", 1)
    shop.start(concurrency=4)
    shop.feed(MERCHANTS, each=3)
    wait(lambda: shop.store.overview().sink_failures > 1, "the sink is tried again")
    overview = shop.store.overview()
    assert overview.failing_count == 0
    assert len(shop.turns()) <= 4 + overview.sink_failures + 1
    shop.set("down", "")
    shop.drained()
    shop.in_order()
    assert shop.store.overview().sink_failures == 0


def test_a_worker_killed_after_its_sink_wrote_repeats_and_loses_nothing(workshop: Workshops) -> None:
    shop = workshop(lease="1s")
    dying = shop.start(concurrency=1, PIPELINE_FAILPOINTS="turn.handled:2")
    shop.feed(MERCHANTS, each=3)
    wait(lambda: not dying.alive(), "it died at the failpoint")
    shop.start()
    shop.drained()
    shop.in_order()
    taken = [offset for lane in shop.delivered().values() for _, offset in lane]
    assert len(taken) > len(set(taken))


def _failing(shop: Workshop) -> list[str]:
    return [lane.merchant for lane in shop.store.overview().failing]


def test_the_keys_of_a_consumer_begin_with_its_name(workshop: Workshops) -> None:
    shop = workshop()
    shop.feed(["6"])
    namespace = namespace_of(shop.deployment, CONSUMER)
    assert shop.client.llen(f"{namespace}.m.6") == 1
