"""Pending offsets against the plainest model: a set of offsets per merchant."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.bridge.offsets import Partition
from pipeline.ports import Appended, News, Tenure
from tests.fakes.kafka import MemoryRecord

MERCHANTS = ("6", "7", "acme")

polls = st.lists(st.sampled_from((*MERCHANTS, None)), min_size=1, max_size=8)
acknowledgements = st.tuples(st.sampled_from(MERCHANTS), st.integers(0, 60))
steps = st.lists(st.one_of(polls, acknowledgements, st.just("append")), max_size=25)


@given(steps=steps)
def test_the_watermark_and_the_bytes_are_those_of_what_is_pending(
    steps: list[list[str | None] | tuple[str, int] | str],
) -> None:
    subject = Partition(0, 1, Tenure(1, 3), committed=0)
    pending: dict[str, set[int]] = {merchant: set() for merchant in MERCHANTS}
    strange: set[int] = set()
    answered: set[str] = set()
    offset = 0
    for step in steps:
        if isinstance(step, list):
            records = [
                MemoryRecord(offset + n, key.encode() if key else None, b"xxx") for n, key in enumerate(step)
            ]
            subject.receive(records, 0.0, 10**6)
            for record in records:
                (pending[record.key.decode()] if record.key else strange).add(record.offset)
            offset += len(step)
        elif isinstance(step, tuple):
            merchant, accepted = step[0], min(step[1], offset - 1)
            if merchant in answered:  # else: which incarnation it is is not known yet
                subject.accept(News(merchant, 3, accepted))
                pending[merchant] = {one for one in pending[merchant] if one > accepted}
        else:
            for part in list(subject.appends()):
                subject.answered(Appended(part.lane, 0, part.offsets[-1], -1, 3), 0.0)
                answered.add(part.lane)
            subject.aside.strange, strange = [], set()
        waiting = strange.union(*pending.values())
        assert subject.smallest_pending() == min(waiting, default=None)
        assert subject.size == 3 * sum(map(len, pending.values()))
        assert subject.pending_lanes == sum(1 for offsets in pending.values() if offsets)
        assert subject.position == offset
