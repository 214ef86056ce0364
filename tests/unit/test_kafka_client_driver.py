"""Who drives the Kafka client's loop."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.net.selector import NetworkSelector

from devstack.process import wait_until
from pipeline.bridge.driver import Driver

LONG = 20.0


@pytest.fixture
def net() -> Iterator[Any]:
    made = NetworkSelector()
    made.start()
    driver = Driver(made)
    yield made
    driver.close()
    made.close()


def test_a_call_is_carried_out_on_the_thread_that_makes_it(net: Any) -> None:
    # Mutant: net.stop() is left out.
    assert net.run(threading.current_thread) is threading.current_thread()


def test_what_is_due_while_nobody_calls_is_done(net: Any) -> None:
    # Mutant: no thread stands in.
    done = threading.Event()
    net.call_later(0.01, done.set)
    assert done.wait(LONG)


def test_a_call_does_not_wait_for_what_the_thread_has_just_done(net: Any) -> None:
    # Mutant: a step of _asked() always waits. With nothing else to come in this loop, that is for ever.
    standing_in = threading.Event()
    net.call_later(0.01, standing_in.set)
    assert standing_in.wait(LONG)
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(net.run(lambda: 1)), daemon=True)
    caller.start()
    assert wait_until(lambda: bool(answers), LONG)
    assert wait_until(lambda: not caller.is_alive(), LONG)


def test_the_thread_leaves_the_loop_to_whoever_calls_often(net: Any) -> None:
    # Mutant: it stands in whether anybody has called or not.
    ran: set[str] = set()
    end = threading.Event()
    net.call_later(1.0, end.set)
    while not end.is_set():
        net.run(net.sleep(0.02).__await__)
        net.call_soon(lambda: ran.add(threading.current_thread().name))
    assert ran == {threading.current_thread().name}


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
