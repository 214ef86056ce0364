"""When two topics of one name are two for certain."""

import pytest

from pipeline.bridge.identity import KnownTopics
from pipeline.control.identities import Identity
from pipeline.errors import PositionLostError


# Mutants: only clusters are compared; an id that one side does not tell makes a difference.
@pytest.mark.parametrize(
    ("known", "found", "differ"),
    [
        (Identity("c", "1"), Identity("c", "1"), False),
        (Identity("c", "1"), Identity("c", "2"), True),
        (Identity("c", "1"), Identity("d", "1"), False),  # ids are unique: the cluster got another name
        (Identity("c", None), Identity("c", "1"), False),
        (Identity("c", None), Identity("d", "1"), True),
        (Identity("c", "1"), Identity("d", None), True),
        (Identity(None, None), Identity("d", "1"), False),
        (Identity("c", "1"), Identity(None, None), False),
    ],
)
def test_topics_differ_by_their_ids_or_else_by_their_clusters(
    known: Identity, found: Identity, differ: bool
) -> None:
    topics = KnownTopics("audit", {"t": known})
    topics.require({"elsewhere": Identity("x", "9")})
    if differ:
        with pytest.raises(
            PositionLostError, match="topic t is not the one that the offsets of audit belong to"
        ):
            topics.require({"t": found})
    else:
        topics.require({"t": found})
