"""Which fault strikes when: all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

FIRST, LAST = 5.0, 15.0  # seconds before the first strike, and between the last one and the end
_NEAREST, _FARTHEST = 1.0, 3.5  # seconds between two strikes
_TOGETHER, _SOON = (
    0.4,
    0.6,
)  # how often the next one comes while the last one is still felt, within how many seconds


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that strikes `at` seconds after the beginning; `seed` draws whom it hits."""

    at: float
    fault: str
    seed: int


def schedule(seed: int, seconds: float, weights: Mapping[str, float]) -> list[Strike]:
    """Strikes of a run of so many seconds: every fault once, in any order, then by weight."""
    dice = random.Random(seed)
    names = sorted(weights)
    first = dice.sample(names, len(names))
    strikes: list[Strike] = []
    at = FIRST
    while names and at < seconds - LAST:
        place = len(strikes)
        fault = first[place] if place < len(first) else _drawn(dice, weights)
        strikes.append(Strike(round(at, 2), fault, dice.getrandbits(32)))
        at += dice.uniform(0, _SOON) if dice.random() < _TOGETHER else dice.uniform(_NEAREST, _FARTHEST)
    return strikes


def _drawn(dice: random.Random, weights: Mapping[str, float]) -> str:
    names = sorted(weights)
    return dice.choices(names, [weights[name] for name in names])[0]
