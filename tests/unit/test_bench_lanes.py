"""The pure parts of `bench lanes`: its events, its clock's arithmetic, its figures and their bars, its pictures."""

import struct
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from bench.lanes import shards, watching
from bench.lanes.cli import _parts
from bench.lanes.consumers import RECEIPT
from bench.lanes.costs import Cost
from bench.lanes.draining import Drained
from bench.lanes.events import PARTITIONS, Envelopes, beside, elsewhere, names, zipf
from bench.lanes.phases import Phase
from bench.lanes.plots import draw
from bench.lanes.result import PARTS, Result, met
from bench.lanes.traffic import SENT, moments
from bench.lanes.troubles import Isolation
from bench.lanes.watching import Sample, change, per_second, quantile, received, samples, sent, spread
from pipeline.bridge.doubles import Doubles
from pipeline.domain.event import decode
from pipeline.domain.routing import partition_of


def _record(offset: int, partition_key_value: tuple[int, bytes, bytes]) -> SimpleNamespace:
    _, key, value = partition_key_value
    return SimpleNamespace(offset=offset, key=key, value=value)


def test_envelopes_are_events_that_nobody_takes_for_doubles() -> None:
    envelopes = Envelopes("shop")
    records = [_record(offset, envelopes.of("m1")) for offset in range(2000)]
    assert len(Doubles(0, {}).without(records)) == 2000
    events = [decode(record.value, "m1") for record in records]
    assert [event.ev for event in events] == list(range(1, 2001))
    assert events[-1].version > events[0].version
    assert 350 < len(bytes(events[0].after)) < 420
    assert len({bytes(event.after) for event in events[:500]}) == 500
    assert envelopes.of("m1")[0] == partition_of("m1", PARTITIONS)


def test_merchants_come_by_zipf_the_same_for_a_seed() -> None:
    counts = Counter(zipf(names(100), 50_000, 1))
    assert sum(counts.values()) == 50_000
    assert counts["m0"] == pytest.approx(2 * counts["m1"], rel=0.1)
    assert list(zipf(names(10), 100, 1)) == list(zipf(names(10), 100, 1)) != list(zipf(names(10), 100, 2))


def test_a_partition_and_the_others_have_all_merchants() -> None:
    ours, others = beside(names(100), 3), elsewhere(names(100), 3)
    assert ours and others
    assert sorted(ours + others) == sorted(names(100))
    assert {partition_of(merchant, PARTITIONS) for merchant in ours} == {3}


def test_quantiles_are_values_that_were_seen() -> None:
    assert [quantile(range(1, 101), percent) for percent in (0, 50, 99, 100)] == [1, 51, 100, 100]
    assert quantile([7.0], 99) == 7.0


def test_changes_and_spreads_are_fractions_of_medians() -> None:
    assert change([12.0, 99.0, 11.0], [10.0, 9.0, 20.0]) == pytest.approx(0.2)
    assert spread([9.0, 10.0, 12.0]) == pytest.approx(0.3)
    assert spread([5.0]) == 0


def test_a_sample_lasts_from_its_sending_to_the_first_receipt(tmp_path: Path) -> None:
    sending, receiving = tmp_path / "sent", tmp_path / "receipts"
    sending.write_bytes(SENT.pack(0, 8, 100.2) + SENT.pack(0, 7, 100.1))
    receipts = [(0, 7, 100.15), (0, 8, 100.3), (0, 7, 200.0), (5, 1, 3.0)]
    receiving.write_bytes(b"".join(RECEIPT.pack(*line) for line in receipts) + b"half a line")
    found = samples(sent(sending), received(receiving), 100.0)
    assert [(round(one.at, 3), round(one.ms, 3)) for one in found] == [(0.1, 50.0), (0.2, 100.0)]


def test_an_event_that_never_came_to_a_task_spoils_everything() -> None:
    with pytest.raises(RuntimeError, match="1 of 2 events never came"):
        samples({(0, 1): 1.0, (0, 2): 1.0}, {(0, 1): 2.0}, 0.0)


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert list(watching.read(tmp_path / "none", struct.Struct("<iqd"))) == []


def test_quantiles_of_each_second() -> None:
    given = [Sample(0.1, 5.0), Sample(0.9, 7.0), Sample(2.0, 9.0)]
    assert per_second(given, 99) == [(0.5, 7.0), (2.5, 9.0)]


def test_events_leave_at_random_times_and_in_crowds_at_high_rates() -> None:
    single = list(moments(300, 3000, 1))
    assert {together for _, together in single} == {1}
    assert single[-1][0] == pytest.approx(10, rel=0.1)
    crowds = list(moments(5000, 5010, 1))
    assert sum(together for _, together in crowds) == 5010
    assert crowds[1] == (0.005, 25)


def test_plain_tasks_keep_a_queues_order_and_hold_no_more_than_they_may() -> None:
    envelopes = Envelopes("shop")
    records = [
        _record(offset, envelopes.of(merchant)) for offset, merchant in enumerate(zipf(names(9), 250, 1))
    ]
    made = shards.tasks(records, 100)
    assert {len(batch) for batches in made.values() for batch in batches[:-1]} <= {100}
    for queue, batches in made.items():
        values = [value for batch in batches for _, value in batch]
        assert values == [r.value.decode() for r in records if shards.queue_of(r.key.decode()) == queue]


def _phase(*, trouble: bool, ms: float) -> Phase:
    return Phase(trouble, [Sample(0.1, ms)] * 200, [Sample(0.1, 2 * ms)], 0.001, 10.0)


def _isolation(trouble: str, healthy: tuple[float, ...], troubled: tuple[float, ...]) -> Isolation:
    pairs = zip(healthy, troubled, strict=False)
    phases = [phase for a, b in pairs for phase in (_phase(trouble=False, ms=a), _phase(trouble=True, ms=b))]
    return Isolation(trouble, 50, [*phases, _phase(trouble=False, ms=healthy[-1])])


def _drained(us: float) -> Drained:
    return Drained(1000, 0.5, {"bridge": us / 4000, "worker": us / 4000, "redis": us / 2000})


@pytest.fixture
def result() -> Result:
    return Result(
        costs=[Cost(1000, 50, _drained(40)), Cost(1000, 1, _drained(900)), Cost(100_000, 50, _drained(100))],
        plain={1: _drained(1000), 100: _drained(60)},
        steady=[_phase(trouble=False, ms=ms) for ms in (10, 12, 30)],
        isolations=[
            _isolation("flood", (10, 11, 10, 10), (11, 12, 13)),
            _isolation("slow", (10, 30, 20, 20), (20, 26, 90)),
        ],
        memory={100_000: 100_000_000, 5_000_000: 107_000_000},
    )


def test_figures_are_named_as_promised_and_are_fractions(result: Result) -> None:
    assert result.figures() == {
        "cpu_us_per_event_1000": 40.0,
        "cpu_us_per_event_100000": 100.0,
        "vs_plain_celery": 25.0,
        "vs_batched_celery": 1.5,
        "latency_p50_ms": 12,
        "latency_p99_ms": 12,
        "flood_p99_change": 0.2,
        "slow_p99_change": 0.3,
        "healthy_spread": 0.55,
        "bridge_memory_growth": 0.07,
    }


def test_a_part_that_was_left_out_has_no_figure() -> None:
    assert Result().figures() == {}
    assert Result(costs=[Cost(10, 50, _drained(10))], plain={1: _drained(99)}).figures() == {}


def test_twice_the_spread_of_healthy_rounds_moves_the_bar(result: Result) -> None:
    assert result.bar("flood_p99_change") == ("≤", 0.2)
    assert result.bar("slow_p99_change") == ("≤", 2.0)
    assert result.bar("vs_plain_celery") == ("≥", 15)
    assert result.bar("healthy_spread") is None
    assert met(("≤", 0.2), 0.2) and not met(("≤", 0.2), 0.21) and met(("≥", 15), 15)


def test_a_drain_counts_every_process() -> None:
    assert _drained(40).us == pytest.approx(40)
    assert _drained(40).us_of("redis") == pytest.approx(20)
    assert _drained(40).us_of("kafka") == 0
    assert _drained(40).events_per_s == 2000


def test_every_part_has_a_picture(result: Result, tmp_path: Path) -> None:
    found = draw(result, tmp_path / "plots")
    names = ["cpu", "latency", "memory", "flood", "slow"]
    assert [file.name for file in found] == [f"lanes_{name}.png" for name in names]
    assert all(file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for file in found)


def test_only_known_parts_can_be_chosen() -> None:
    context, option = click.Context(click.Command("lanes")), click.Option(["--only"])
    assert _parts(context, option, None) == PARTS
    assert _parts(context, option, "flood,cpu") == ("flood", "cpu")
    with pytest.raises(click.BadParameter, match="drought"):
        _parts(context, option, "cpu,drought")
