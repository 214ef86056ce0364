"""A consumer whose sink refuses one merchant, until somebody mends it; all others are done at once."""

from pipeline.consumer import Turn
from tests.acceptance.recorder import record

REFUSED = "refused"


def consume(turn: Turn) -> None:
    """Fail the lane of REFUSED; record the rest."""
    others = [lane for lane in turn if lane.merchant != REFUSED]
    for lane in turn:
        if lane.merchant == REFUSED:
            lane.retry("its sink has no room")
    if others:
        record(Turn(turn.consumer, turn.token, others))
