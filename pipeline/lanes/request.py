"""From a claim to a Celery task and back, by Celery's own hooks: the strategy and the request of a consumer's task.

A claim travels to the task as its argument, as it is under threads and solo, pickled to a child under prefork; the
outcomes come back beside the return value, of which Celery passes on only the text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import ref

from celery import Celery, Task, signals
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.worker.request import Request
from celery.worker.state import task_reserved

from pipeline.lanes.claim import Claim
from pipeline.lanes.held import HeldTurns
from pipeline.lanes.turn import Consumption, Finish, reason_of, run_turn

_STRATEGY = "pipeline.lanes.request:strategy"
_here = threading.local()


class Delivery(NamedTuple):
    """What the transport puts into a message: a claim, and where its outcomes go."""

    claim: Claim
    held: HeldTurns


def register(app: Celery, consumption: Consumption) -> Task:
    """The task of a consumer: named like it, it takes a claim."""

    def turn(claim: Claim) -> str:
        _here.finish = run_turn(consumption, claim)
        return str(_here.finish)

    return app.task(turn, name=consumption.consumer, Strategy=_STRATEGY, acks_late=True, ignore_result=True)


def turn_of(task: str, claim: Claim, held: HeldTurns) -> dict[str, Any]:
    """A turn's message; what people see of it names merchants, never contents."""
    info = {"exchange": "", "routing_key": task}
    properties = {"delivery_info": info, "delivery": Delivery(claim, held)}
    return {"headers": _headers(task, claim), "properties": properties}


def _headers(task: str, claim: Claim) -> dict[str, Any]:
    name = f"{task}-{claim.token}"
    return {
        "lang": "py",
        "task": task,
        "id": name,
        "root_id": name,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "argsrepr": str(claim),
        "kwargsrepr": "",
        "ignore_result": True,
    }


def strategy(task: Task, app: Celery, consumer: Any) -> Callable[..., None]:
    """How a worker takes a turn's message: without rate limits, ETAs and revocation, which would re-order a lane."""
    eventer = consumer.event_dispatcher

    def take(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> None:
        delivery: Delivery = message.properties.pop("delivery")
        request = TurnRequest(
            message,
            on_ack=ack,
            on_reject=reject,
            app=app,
            hostname=consumer.hostname,
            eventer=eventer,
            task=task,
            connection_errors=consumer.connection_errors,
            body=((delivery.claim,), {}, {}),
            decoded=True,
        )
        request.turn = delivery
        signals.task_received.send(sender=consumer, request=request)
        request.send_event("task-received", name=request.name, args=request.argsrepr, kwargs="", retries=0)
        task_reserved(request)
        for callback in callbacks:
            callback(request)
        consumer.on_task_request(request)

    return take


def trace(run: Callable[..., Any], *arguments: Any) -> tuple[int, Any, float]:
    """Run a turn's task where the pool runs it, and bring its outcomes back in place of the return value's text."""
    _here.finish = None
    failed, result, runtime = run(*arguments)
    return failed, result if failed else _here.finish, runtime


class TurnRequest(Request):  # type: ignore[misc]  # Celery has no types
    """A turn in the worker: tells the process's held turns when it begins and what became of it."""

    turn: Delivery

    def execute_using_pool(self, pool: Any, **options: Any) -> Any:
        """Hand the turn to the pool."""
        run = fast_trace_task if self._app.use_fast_trace_task else trace_task_ret
        result = pool.apply_async(
            trace,
            args=(run, self.name, self.id, self._request_dict, self._body, None, None),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=self.task.soft_time_limit,
            timeout=self.task.time_limit,
            correlation_id=self.id,
        )
        self._apply_result = None if result is None else ref(result)
        return result

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """The pool begins the turn."""
        self.turn.held.started(self.turn.claim.token)
        super().on_accepted(pid, time_accepted)

    def on_success(self, failed__retval__runtime: tuple[int, Any, float], **options: Any) -> None:
        """The turn came back, its outcomes in place of a return value."""
        failed, result, runtime = failed__retval__runtime
        if isinstance(result, Finish):
            self.turn.held.finished(self.turn.claim.token, result)
            result = str(result)
        super().on_success((failed, result, runtime), **options)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The turn broke down: its pool process died, or its task could not run."""
        self.turn.held.lost(self.turn.claim.token, reason_of(exc_info.exception))
        super().on_failure(exc_info, send_failed_event, return_ok)

    def acknowledge(self) -> None:
        """The message is done with; a turn that never said what became of it is tried again."""
        self.turn.held.lost(self.turn.claim.token, "the worker ended the turn")
        super().acknowledge()
