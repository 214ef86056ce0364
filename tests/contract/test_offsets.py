"""The promises of committed offsets, kept by those in memory and by Kafka's alike."""

from collections.abc import Iterator

import pytest

from pipeline.errors import FencedError
from pipeline.ports import Committed
from tests.fakes.groups import BOTH, CHANGES, ROWS, Group, groups


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """A group whose only member has got both partitions."""
    for group in groups(request):
        held: set[int] = set()

        def all_held(group: Group = group, held: set[int] = held) -> bool:
            held |= group.member.poll(0.1).assigned
            return held == BOTH

        group.wait(all_held)
        yield group


def test_what_is_committed_is_read_back(group: Group) -> None:
    # Mutant: committed() without the note, which then never comes back.
    group.member.commit({CHANGES: Committed(3, "three")})
    group.member.commit({CHANGES: Committed(5, '{"at":5}'), ROWS: Committed(2)})
    assert dict(group.member.committed(BOTH)) == {CHANGES: Committed(5, '{"at":5}'), ROWS: Committed(2)}


def test_a_commit_may_go_back(group: Group) -> None:
    group.member.commit({CHANGES: Committed(3, "three")})
    group.member.commit({CHANGES: Committed(1)})
    assert group.member.committed(frozenset({CHANGES})) == {CHANGES: Committed(1)}


def test_a_partition_that_never_had_an_offset_is_absent(group: Group) -> None:
    assert 7 not in group.member.committed(frozenset({CHANGES, 7}))


def test_committing_a_partition_of_others_is_refused_and_changes_nothing(group: Group) -> None:
    # Mutant: commit() without comparing with the assignment; the broker accepts it.
    revoked: set[int] = set()

    def taken() -> bool:
        revoked.update(group.member.poll(0.1).revoked)
        return bool(revoked)

    group.take_away()
    group.wait(taken)
    with pytest.raises(FencedError):
        group.member.commit(dict.fromkeys(revoked, Committed(1)))
    assert dict(group.member.committed(frozenset(revoked))) == dict.fromkeys(revoked, Committed(0))
