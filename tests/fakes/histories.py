"""Random histories of a world: every history has its own mix of faults and paces, and can be played again and cut down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple, get_args

from tests.fakes.promises import Broken
from tests.fakes.stream import LANES, NUMBERS, Kind
from tests.fakes.wires import CALLS, Trouble
from tests.fakes.world import WORKERS, Conduct, Damage, Poison, World

_CALLS = tuple(call for calls in CALLS.values() for call in calls)
_WRITES = (
    "add",
    "reset",
    "commit",
    "take_over",
    "detach",
    "hand_over",
    "advance",
    "close",
    "put",
    "note",
    "wait_sweeps",
    "pass_sweeps",
)
_PLAIN = {"append": 5.0, "bridge": 14.0, "work": 14.0, "turn": 3.0, "wait": 2.0, "finish_tick": 1.0}
_FAULTS = {
    "strange": 0.6,
    "sweep": 0.4,
    "again": 1.0,
    "arm": 6.0,
    "kill_bridge": 0.5,
    "kill_worker": 1.0,
    "set_group": 0.3,
    "rebalance": 1.5,
    "deliver_late": 3.0,
    "fill_store": 0.4,
    "lose_store": 0.4,
    "save_store": 1.0,
    "restore_store": 0.6,
    "damage": 2.0,
    "expire": 1.0,
    "ask": 4.0,
    "let_go": 2.0,
    "pause_consumer": 0.3,
    "poison": 0.7,
    "cure": 0.5,
    "switch": 0.5,
    "copy": 1.0,
    "retain": 0.7,
    "age": 2.0,
    "misconduct": 3.0,
}
_PACES, _SHARES = (0.3, 1.0, 1.0, 2.0), (0.0, 0.0, 0.3, 1.0, 2.0)


class Action(NamedTuple):
    """One step of a history: a method of the world and its arguments."""

    name: str
    arguments: tuple[Any, ...] = ()

    def play(self, world: World) -> None:
        """Do it."""
        getattr(world, self.name)(*self.arguments)


class Mix:
    """What may happen in one history, and how often; all of it follows from `seed`."""

    def __init__(self, seed: str) -> None:
        random = Random(seed)
        weights = {name: weight * random.choice(_PACES) for name, weight in _PLAIN.items()}
        weights |= {name: weight * random.choice(_SHARES) for name, weight in _FAULTS.items()}
        self.lanes = random.choice((LANES, LANES, LANES[:4], LANES[:2], random.sample(LANES, 3)))
        self._names = [name for name, weight in weights.items() if weight]
        self._weights = [weights[name] for name in self._names]
        self._troubles = random.sample(get_args(Trouble), random.choice((1, 2, 6)))
        self._calls = random.choice((_CALLS, _WRITES, _WRITES, random.sample(_WRITES, 3)))

    def stretch(self, seed: str, length: int) -> Iterator[Action]:
        """So many things that happen one after another."""
        random = Random(seed)
        for name in random.choices(self._names, self._weights, k=length):
            yield from _DRAWS[name](self, random)

    # Each of these draws the arguments of one kind of action.

    def append(self, random: Random) -> Iterator[Action]:
        yield Action("append", (random.choice(self.lanes), "event", random.choice((1, 1, 2, 4))))

    def strange(self, random: Random) -> Iterator[Action]:
        yield Action("append", (random.choice(self.lanes), random.choice(get_args(Kind)[1:])))

    def sweep(self, random: Random) -> Iterator[Action]:
        yield Action("append_sweep")

    def finish_tick(self, random: Random) -> Iterator[Action]:
        yield Action("finish_tick", (random.randrange(2),))

    def again(self, random: Random) -> Iterator[Action]:
        yield Action("publish_again", (random.randrange(2), random.choice((0, 1, 3))))

    def bridge(self, random: Random) -> Iterator[Action]:
        yield Action("pass_time", (random.choice((50, 300, 600)),))
        slot = random.randrange(2)
        yield Action("run_bridge", (slot,))
        if random.random() < 0.5:
            yield Action("run_bridge", (1 - slot,))

    def arm(self, random: Random) -> Iterator[Action]:
        trouble, call = random.choice(self._troubles), random.choice(self._calls)
        yield Action("arm", (random.randrange(2), trouble, call, random.choice((0, 0, 1))))

    def kill_bridge(self, random: Random) -> Iterator[Action]:
        yield Action("kill_bridge", (random.randrange(2),))

    def rebalance(self, random: Random) -> Iterator[Action]:
        yield Action("rebalance", (random.choice(NUMBERS), random.randrange(2)))

    def work(self, random: Random) -> Iterator[Action]:
        yield Action("work", (random.randrange(WORKERS),))

    def misconduct(self, random: Random) -> Iterator[Action]:
        conduct = random.choice(get_args(Conduct))
        yield Action(
            "work",
            (random.randrange(WORKERS), conduct, random.choice((None, "late", "no answer", "reply lost"))),
        )

    def turn(self, random: Random) -> Iterator[Action]:
        yield Action("turn", (random.randrange(WORKERS),))

    def kill_worker(self, random: Random) -> Iterator[Action]:
        yield Action("kill_worker", (random.randrange(WORKERS),))

    def set_group(self, random: Random) -> Iterator[Action]:
        yield Action("set_group", (random.choice((1, 2, 4, 8)),))

    def wait(self, random: Random) -> Iterator[Action]:
        yield Action("pass_time", (random.choice((1000, 3000)),))

    def expire(self, random: Random) -> Iterator[Action]:
        yield Action("pass_time", (11_000,))

    def ask(self, random: Random) -> Iterator[Action]:
        verb = random.choice(("pause", "pause", "resume", "release", "skip", "rewind", "rewind", "resync"))
        yield Action("ask", (verb, random.choice(self.lanes), random.randrange(8)))

    def let_go(self, random: Random) -> Iterator[Action]:
        yield Action("let_go", (random.choice(self.lanes),))

    def pause_consumer(self, random: Random) -> Iterator[Action]:
        yield Action("pause_consumer", (random.random() < 0.4,))

    def poison(self, random: Random) -> Iterator[Action]:
        yield Action("poison_lane", (random.choice(self.lanes), random.choice(get_args(Poison))))

    def damage(self, random: Random) -> Iterator[Action]:
        yield Action("damage", (random.choice(get_args(Damage)), random.choice(self.lanes)))

    def fill_store(self, random: Random) -> Iterator[Action]:
        yield Action("fill_store", (random.random() < 0.5,))

    def switch(self, random: Random) -> Iterator[Action]:
        yield Action("switch", (random.choice(tuple(CALLS)), random.random() < 0.6))

    def copy(self, random: Random) -> Iterator[Action]:
        yield Action("copy", (random.randrange(2),))

    def age(self, random: Random) -> Iterator[Action]:
        yield Action("pass_time", (random.choice((1000, 3000)),))
        yield from (Action("copy", (slot,)) for slot in range(2))
        yield from (Action("retain", (number,)) for number in NUMBERS)

    def retain(self, random: Random) -> Iterator[Action]:
        yield Action("retain", (random.choice(NUMBERS),))


def _plain(name: str) -> Callable[[Mix, Random], Iterator[Action]]:
    return lambda mix, random: iter((Action(name),))


_DRAWS: dict[str, Callable[[Mix, Random], Iterator[Action]]] = {
    name: getattr(Mix, name, _plain(name)) for name in (*_PLAIN, *_FAULTS)
}


def broken_by(made: Callable[[], World], actions: Sequence[Action]) -> str | None:
    """What a history breaks, played from the start; None when it keeps every promise."""
    world = made()
    try:
        for action in actions:
            action.play(world)
        world.settle()
    except Broken as broken:
        return str(broken)
    return None


def shortest(made: Callable[[], World], actions: Sequence[Action]) -> list[Action]:
    """A history that breaks a promise, without what it does not need for it."""
    left = list(actions)
    size = max(1, len(left) // 2)
    while True:
        start, cut = 0, False
        while start < len(left):
            fewer = left[:start] + left[start + size :]
            if broken_by(made, fewer) is None:
                start += size
            else:
                left, cut = fewer, True
        if size == 1 and not cut:
            return left
        size = max(1, size // 2)
