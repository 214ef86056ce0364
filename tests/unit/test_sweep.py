"""What counts as a sweep: a bridge must be able to record it, or it would never pass it."""

import msgspec
import pytest

from pipeline.domain.sweep import Sweep, decode_sweep, encode_sweep

SWEEP = Sweep(1, "sweep", "shop:t:1:7", "shop", "public.t", "t", None, str(2**63 - 1), "truncate")


def test_a_sweep_comes_back_as_it_was() -> None:
    assert decode_sweep(encode_sweep(SWEEP)) == SWEEP


@pytest.mark.parametrize(
    "change",
    [{"ver": str(2**63)}, {"ver": "-1"}, {"ver": ""}, {"id": "a\0"}, {"merchant": "\0"}, {"id": "x" * 3000}],
    ids=["version beyond a bigint", "negative", "none", "NUL", "NUL in a merchant", "id beyond an index"],
)
def test_what_the_control_database_cannot_keep_is_none(change: dict[str, str]) -> None:
    # Mutant: taken as a sweep, it stops the bridge at every start.
    assert decode_sweep(encode_sweep(msgspec.structs.replace(SWEEP, **change))) is None
