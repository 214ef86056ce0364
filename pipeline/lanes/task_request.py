"""Ordinary Celery tasks in merchants' lanes: how a worker takes one that came from a lane.

Celery's own strategy takes it, so that rate limits, revocation, expiry and events are what they are; only it is always
acknowledged late, and never lost with its process: the lane waits behind its head until the head is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Task
from celery.app.amqp import Queues
from celery.exceptions import Reject
from celery.worker.request import Request
from celery.worker.strategy import default
from kombu import Exchange, Queue

from pipeline.errors import PipelineError
from pipeline.lanes.held_tasks import TASKS, HeldTasks
from pipeline.lanes.turn import reason_of


class LaneTask(Task):  # type: ignore[misc]  # Celery has no types
    """A task that can run in a lane and anywhere else."""

    Strategy = f"{__name__}:strategy"


def strategy(task: Task, app: Any, consumer: Any) -> Callable[..., Any]:
    """Celery's strategy: as the task is set up, or for messages that came from a lane, so that it keeps the lane's order."""
    late = object.__new__(type(task))  # copy() of a task is the task itself
    vars(late).update(vars(task))
    late.acks_late = late.reject_on_worker_lost = True
    late.retry_on_worker_lost = False
    late.Request = f"{__name__}:TaskRequest"
    anywhere, in_lanes = default(task, app, consumer), default(late, app, consumer)

    def take(message: Any, *args: Any, **options: Any) -> Any:
        # Kombu's own delivery tags are texts.
        laned = getattr(message.delivery_tag, "queue", None) == TASKS
        return (in_lanes if laned else anywhere)(message, *args, **options)

    return take


class TaskRequest(Request):  # type: ignore[misc]  # Celery has no types
    """A task from a lane: tells the held tasks when it begins, and when it must come again."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """The pool begins the task."""
        self._held().started(self._token())
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The task failed, which is as good as done, unless it asked to come again."""
        error = getattr(
            exc_info.exception, "exc", exc_info.exception
        )  # it may have travelled with its traceback
        if isinstance(error, Reject) and _comes_again(error):
            self._held().lost(self._token(), reason_of(error))
        super().on_failure(exc_info, send_failed_event, return_ok)

    def _held(self) -> HeldTasks:
        held: HeldTasks = self.message.channel.consumers[self.message.delivery_tag.queue]
        return held

    def _token(self) -> int:
        return int(self.message.delivery_tag.token)


def _comes_again(error: Reject) -> bool:
    # Task.retry arrives as Reject without requeue around our refusal: the task would be lost.
    return bool(error.requeue) or isinstance(error.reason, PipelineError)


class LaneQueues(Queues):  # type: ignore[misc]  # Celery has no types
    """Celery's routing table without an entry for each lane a process has ever sent to."""

    def __missing__(self, name: str) -> Any:
        """The queue of a lane is nothing to declare or to remember."""
        if name.startswith(f"{TASKS}.m."):
            return Queue(name, Exchange(""), name, no_declare=True)
        return super().__missing__(name)
