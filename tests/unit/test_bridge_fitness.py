"""Which settings of topics are refused, and what is said of them."""

import pytest

from pipeline.bridge.fitness import retention, short_retention, topic_problems

FIT = {"retention.bytes": "-1", "cleanup.policy": "delete", "retention.ms": "604800000"}


def test_topics_made_by_migrate_are_fit() -> None:
    assert topic_problems({"datastream": FIT}) == []
    assert short_retention("datastream", retention(FIT)) is None


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("retention.bytes", "1000000", "retention.bytes=-1"),
        ("retention.bytes", "0", "retention.bytes=-1"),
        ("cleanup.policy", "compact", "cleanup.policy=delete"),
        ("cleanup.policy", "compact,delete", "cleanup.policy=delete"),
    ],
)
def test_a_topic_that_deletes_what_is_still_needed_is_named_with_its_cure(
    name: str, value: str, cure: str
) -> None:
    [problem] = topic_problems({"datastream": FIT, "other": {**FIT, name: value}})
    assert problem.startswith(f"topic other: {name} is {value}")
    assert problem.endswith(f"--entity-name other --add-config {cure}")


def test_a_day_of_retention_is_enough_and_for_ever_too() -> None:
    assert short_retention("t", 24 * 3600.0) is None
    assert short_retention("t", retention({**FIT, "retention.ms": "-1"})) is None
    assert "keeps records for 1.5 h" in (short_retention("t", 1.5 * 3600) or "")
