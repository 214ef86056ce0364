"""Who drives the Kafka client's loop."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.net.selector import NetworkSelector

from devstack.process import wait_until
from pipeline.bridge import driver as driver_module
from pipeline.bridge.driver import Driver

LONG = 20.0


@pytest.fixture
def net() -> Iterator[Any]:
    made = NetworkSelector()
    made.start()
    made.run(lambda: None)  # its thread is there
    driver = Driver(made)
    yield made

    def close() -> None:
        driver.close()
        made.close()

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(LONG)
    assert not closing.is_alive(), "somebody holds the loop still"


def test_a_call_is_carried_out_on_the_thread_that_makes_it(net: Any) -> None:
    # Mutant: net.stop() is left out.
    assert net.run(threading.current_thread) is threading.current_thread()


def test_what_is_due_while_nobody_calls_is_done(net: Any) -> None:
    # Mutant: no thread stands in.
    done = threading.Event()
    net.call_later(0.01, done.set)
    assert done.wait(LONG)


def test_a_call_does_not_wait_for_what_the_thread_has_just_done(net: Any) -> None:
    # Mutant: _asked() that forgets that the thread stood in. With nothing else to come in this loop, its step waits for ever.
    standing_in = threading.Event()
    net.call_later(0.01, standing_in.set)
    assert standing_in.wait(LONG)
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(net.run(lambda: 1)), daemon=True)
    caller.start()
    assert wait_until(lambda: bool(answers), LONG)
    assert wait_until(lambda: not caller.is_alive(), LONG)


def test_the_thread_leaves_the_loop_to_whoever_waits_in_it(net: Any) -> None:
    # Mutant: _is_away() that is always true. (A machine that stops for a moment between two steps lets the thread take one.)
    drove: list[threading.Thread] = []

    async def wait() -> None:
        for _ in range(100):
            await net.sleep(0.01)
            drove.append(threading.current_thread())

    net.run(wait)
    assert len(drove) == 100
    assert drove.count(threading.current_thread()) > 90


def test_a_call_that_comes_while_the_thread_is_busy_for_long_is_next(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutant: _asked_at says when the call came, not that it waits. The thread takes its next step before the call wakes.
    monkeypatch.setattr(driver_module, "_STEP", 5.0)
    busy, over, steps = threading.Event(), threading.Event(), 0

    def work() -> None:
        nonlocal steps
        steps += 1
        if threading.current_thread() is not caller:
            busy.set()
            time.sleep(0.6)
        if not over.is_set():
            net.call_soon(work)

    caller = threading.Thread(target=net.run, args=(lambda: 1,), daemon=True)
    net.call_soon(work)
    assert busy.wait(LONG)
    before = steps
    caller.start()
    caller.join(LONG / 4)
    taken = steps - before
    over.set()
    assert not caller.is_alive()
    assert taken <= 2


def test_a_call_from_inside_the_loop_is_refused(net: Any) -> None:
    # Mutant: a Lock instead of an RLock: it waits for itself.
    refusals: list[str] = []

    def call() -> None:
        try:
            net.run(lambda: 1)
        except RuntimeError as error:
            refusals.append(str(error))

    caller = threading.Thread(target=net.run, args=(call,), daemon=True)
    caller.start()
    caller.join(LONG)
    assert refusals == ["Recursive access to net.poll!"]


def test_a_loop_that_broke_while_nobody_called_is_said_to_the_next_who_does(net: Any) -> None:
    # Mutant: _stand_in() that lets the thread die of it.
    broken, select = threading.Event(), net._selector.select

    def breaks(timeout: float | None) -> Any:
        net._selector.select = select
        broken.set()
        raise OSError("the loop is broken")

    net._selector.select = breaks
    assert broken.wait(LONG)
    with pytest.raises(OSError, match="the loop is broken"):
        net.run(lambda: 1)
