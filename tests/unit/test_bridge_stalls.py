"""A Kafka client that no longer reads is noticed."""

from pipeline.bridge.stalls import StallWatch


class Clock:
    """Seconds, set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def watch(after: float = 30.0) -> tuple[StallWatch, Clock]:
    clock = Clock()
    return StallWatch(after, clock), clock


def test_a_partition_that_stands_while_behind_is_stalled_after_the_time() -> None:
    subject, clock = watch()
    assert not subject.stalled({0: 5})
    clock.now = 29.9
    assert not subject.stalled({0: 5})
    clock.now = 30.0
    assert subject.stalled({0: 5})


def test_a_partition_that_moves_or_has_nothing_to_read_is_not() -> None:
    subject, clock = watch()
    for clock.now, behind in ((0.0, {0: 5}), (20.0, {0: 6}), (40.0, {}), (60.0, {0: 6}), (80.0, {0: 6})):
        assert not subject.stalled(behind)


def test_it_looks_every_few_seconds() -> None:
    subject, clock = watch()
    assert not subject.due()
    clock.now = 5.0
    assert subject.due()
    subject.stalled({})
    assert not subject.due()
