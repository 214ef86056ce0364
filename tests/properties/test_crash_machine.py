"""Random histories of bridges, workers and operators, killed and overtaken between any two steps, on services that lose things.

Nothing is lost, first deliveries of a lane come in order, also those after a rewind, no committed offset passes an event that
nobody accepted and no detached lane's row speaks for, no sweep passes an event that nobody accepted, no lane is claimed
twice, no row of a snapshot is claimed while changes are due, a lane that a person or its failures hold is not claimed,
nobody is parked for what others did or the sink, Kafka may forget what is copied, and when the trouble ends everything comes to rest: first beside the lanes
that are held, then those too. Each mechanism removed alone is found.

A history is sixty things that may happen, drawn from a mix of its own (about ninety actions), and then rest. Five thousand
are tried, a hundred thousand with SOAK=1: each another one, always the same.
"""

import os
from collections.abc import Iterator
from hashlib import blake2b
from itertools import count
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from pipeline.bridge.commits import Commits
from tests.fakes.histories import Action, Mix, broken_by, shortest
from tests.fakes.mistakes import MISTAKES, Mistake
from tests.fakes.promises import Broken
from tests.fakes.world import World

HISTORIES, ROUNDS = 500, 200 if os.environ.get("SOAK") else 10
STRETCHES, LENGTH = 5, 12  # of a history: what it draws, each of which is one action or more
IN_A_ROW = 10
EXAMPLES = 5  # in one run of hypothesis: from ten on it repeats most of each
_numbers = st.integers(0, 2**24 - 1)  # wider ranges are drawn with a preference for small numbers


class CrashMachine(RuleBasedStateMachine):
    """One history after another, each of them whole and none like another: all follows from all numbers drawn so far.

    ``first`` is where that begins, ``played`` what was done in the newest history, ``whole`` are those that came to rest.
    """

    first: str
    played: list[Action]
    whole: set[str]

    def __init__(self) -> None:
        super().__init__()
        self._drawn = self.first
        self._stretches = 0

    @rule(number=_numbers)
    def stretch(self, number: int) -> None:
        """Some things happen one after another; after the last of a history's stretches everything comes to rest."""
        self._drawn = blake2b(f"{self._drawn} {number}".encode(), digest_size=8).hexdigest()
        if self._stretches == 0:
            self._begin()
        for action in self._mix.stretch(self._drawn, LENGTH):
            self.played.append(action)
            action.play(self._world)
        self._stretches = (self._stretches + 1) % STRETCHES
        if self._stretches == 0:
            self._world.settle()
            self.whole.add(self._drawn)

    def _begin(self) -> None:
        """Every history has its own mix of what may happen."""
        self._world, self._mix = World(), Mix(f"mix {self._drawn}")
        self.played.clear()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


def explore(number: int) -> list[Action]:
    """Try the histories of that round; the one that broke a promise, or nothing."""
    played: list[Action] = []
    whole: set[str] = set()
    runs = count(number * HISTORIES)
    try:
        while len(whole) < HISTORIES:
            _run(next(runs), played, whole)
    except Broken:
        return played
    return []


def _run(number: int, played: list[Action], whole: set[str]) -> None:
    machine = type("Run", (CrashMachine,), {"first": str(number), "played": played, "whole": whole})
    run_state_machine_as_test(
        seed(number)(machine),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=IN_A_ROW * STRETCHES,
            deadline=None,
            report_multiple_bugs=False,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_promise_holds_whatever_dies(number: int) -> None:
    if played := explore(number):
        history = shortest(World, played)
        raise Broken("\n".join([str(broken_by(World, history)), *map(str, history)]))


def history(*actions: tuple[Any, ...]) -> list[Action]:
    return [Action(name, tuple(arguments)) for name, *arguments in actions]


_REWOUND = history(
    *(("run_bridge", 0),) * 2,
    ("append", "s.acme", "event", 4),
    *(("run_bridge", 0),) * 2,
    ("pass_time", 300),
    ("run_bridge", 0),
    ("work", 2),
    ("pass_time", 50),
    ("work", 2),
    ("work", 2),
    ("ask", "rewind", "s.acme", 4),
    ("pass_time", 50),
    ("save_store",),
    ("pass_time", 600),
    *(("run_bridge", 0),) * 3,
    ("restore_store",),
)
_BOTH = (("run_bridge", 0), ("run_bridge", 1))
_AWAY = (("pass_time", 2000), ("work", 0), ("work", 0, "unavailable"), ("work", 0))
# Found by one in five hundred random histories or fewer, and cut down: these are played instead of looking for another.
RARE = {
    "a copy is noted once it is whole": history(
        ("arm", 1, "no answer", "put"),
        ("append", "12", "event", 2),
        *_BOTH,
        *_BOTH,
        ("ask", "pause", "12"),
        *_BOTH,
        ("pass_time", 600),
        *_BOTH,
        ("pass_time", 3000),
        ("copy", 1),
        ("retain", 1),
    ),
    "an event must follow the one before it": history(
        ("append", "6"),
        *_BOTH,
        *_BOTH,
        ("save_store",),
        ("append", "6", "event", 2),
        *_BOTH,
        *_BOTH,
        ("restore_store",),
    ),
    "writes are fenced": history(
        ("run_bridge", 0),
        ("arm", 0, "overtaken", "commit"),
        ("arm", 0, "late", "detach"),
        ("append", "acme", "event", 5),
        ("run_bridge", 0),
        ("run_bridge", 0),
        ("run_bridge", 0),
    ),
    "an acknowledgement counts for its own incarnation": _REWOUND,
    "an event is for one incarnation": _REWOUND,
    "a sink that is away counts against nobody": history(
        *_BOTH,
        ("append", "acme"),
        *_BOTH,
        ("work", 1),
        ("append", "12"),
        *_BOTH,
        ("work", 2),
        ("append", "7"),
        *_BOTH,
        *_AWAY,
        ("work", 1),
        ("work", 1),
        *_AWAY,
        ("work", 2),
        ("work", 2),
        *_AWAY,
    ),
    "what a turn of several fails at counts against none of them": history(
        ("set_group", 8),
        *_BOTH,
        ("append", "s.acme"),
        *_BOTH,
        ("work", 1),
        ("append", "s.12"),
        *_BOTH,
        ("work", 2),
        ("poison_lane", "6", "raises"),
        *(("append", lane) for lane in ("6", "7", "12", "acme")),
        *_BOTH,
        ("turn", 0),
        ("work", 1),
        ("work", 1),
        ("pass_time", 2000),
        ("turn", 0),
        ("work", 2),
        ("work", 2),
        *((("pass_time", 2000), ("turn", 0)) * 3),
    ),
    "a take-over opens the rows": history(
        ("append", "7", "event", 1),
        ("run_bridge", 0),
        ("ask", "rewind", "7", 7),
        *(("run_bridge", 0),) * 2,
        ("pass_time", 600),
        ("run_bridge", 0),
        ("append", "7", "event", 2),
        ("lose_store",),
    ),
}


_mistakes = pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.mechanism for mistake in MISTAKES])


@_mistakes
def test_a_missing_mechanism_is_found(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    rare = RARE.get(mistake.mechanism)
    assert rare is None or broken_by(World, rare) is None
    mistake.plant(monkeypatch)
    assert any(explore(number) for number in range(4)) if rare is None else broken_by(World, rare)


@pytest.mark.soak
@_mistakes
def test_a_missing_mechanism_is_found_at_random(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake.plant(monkeypatch)
    found = any(explore(number) for number in range(20))
    if not found and mistake.mechanism in RARE:
        pytest.xfail("too seldom for ten thousand random histories; the written one finds it")
    assert found


# Too rare for a few thousand random histories: written down as they were found.
def test_what_was_read_from_copies_is_given_on_when_kafka_does_not_answer_for_what_follows() -> None:
    # Mutant: the reader raises TransientError although it has brought records, and its position has moved.
    actions = history(
        ("run_bridge", 0),
        ("append", "s.6", "event", 8),
        ("run_bridge", 0),
        ("pass_time", 600),
        ("run_bridge", 0),
        ("pass_time", 3000),
        ("copy", 0),
        ("retain", 2),
        ("run_bridge", 0),
        ("arm", 0, "no answer", "reread", 1),
        *(("run_bridge", 0),) * 2,
    )
    assert broken_by(World, actions) is None


def test_a_commit_that_arrives_late_passes_nothing_that_was_handed_over_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its row spoke for the lane when it was sent. Then the partition was taken over again, behind it.
    actions = history(
        ("run_bridge", 0),
        ("append", "7", "event", 5),
        ("run_bridge", 0),
        ("arm", 0, "late", "commit"),
        ("pass_time", 1100),
        ("ask", "resume", "6"),
        ("arm", 0, "no answer", "answer"),
        *(("run_bridge", 0),) * 3,
        ("deliver_late",),
    )
    assert broken_by(World, actions) is None
    monkeypatch.setattr(Commits, "may_arrive", lambda self, number: 0)
    assert broken_by(World, actions) == "partition 0: committed 5 passes 0"
