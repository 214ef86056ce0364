"""What may be sent into a lane: a Celery message that keeps its merchant's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kombu.utils.json import loads

from pipeline.domain.routing import is_merchant
from pipeline.errors import PermanentError
from pipeline.lanes.claim import Claim
from pipeline.lanes.held import HeldTurns
from pipeline.lanes.held_tasks import TASKS, HeldTasks

_REQUEUE = (
    "raise celery.exceptions.Reject(reason, requeue=True): the task stays at the head of its lane and comes again after a"
    " pause"
)


def lanes_of(queue: str, consumers: Mapping[str, HeldTurns]) -> HeldTasks | None:
    """The lanes of tasks that this queue is one of, None when it is no lane; PermanentError when it is a consumer's."""
    name, _, lane = queue.partition(".")
    held = consumers.get(name)
    if isinstance(held, HeldTasks):
        return held
    if held is None or (lane and lane[:2] not in ("m.", "s.")):
        return None
    raise PermanentError(
        f"{queue} is a lane and takes events from the bridge only: tasks, and with them countdown, eta, priority and"
        " Task.retry, would leave the merchant's order",
        hint=f"use {TASKS}.m.<merchant>, or a queue that is no lane; a consumer retries by lane.retry(reason)",
    )


def merchant_of(queue: str) -> str:
    """Whose lane the queue ``tasks.m.<merchant>`` is; PermanentError when it is nobody's."""
    merchant = queue.removeprefix(f"{TASKS}.m.")
    if merchant == queue or not is_merchant(merchant):
        raise PermanentError(f"{queue} is no merchant's lane", hint=f'send with queue="{TASKS}.m.<merchant>"')
    return merchant


def require_order(queue: str, message: Mapping[str, Any]) -> str:
    """The message's id; PermanentError when the message asks for what would leave the merchant's order."""
    headers, properties = message.get("headers", {}), message.get("properties", {})
    if headers.get("retries"):
        raise PermanentError(f"Task.retry sends to the end of {queue}, behind what came later", hint=_REQUEUE)
    if headers.get("eta"):
        raise PermanentError(
            f"countdown and eta would hold a task of {queue} back while later ones run",
            hint="send it when it is due, or into a queue that is no lane",
        )
    if properties.get("priority"):
        raise PermanentError(
            f"priority would let a task of {queue} overtake earlier ones",
            hint="lanes keep the order of sending",
        )
    if "id" not in headers:
        raise PermanentError(f"{queue} takes tasks of Celery's message protocol 2", hint="see task_protocol")
    return str(headers["id"])


def message_of(claim: Claim) -> dict[str, Any]:
    """The message at the head of a claimed lane of tasks, as it was sent."""
    ((entry,),) = (lane.entries for lane in claim.lanes)
    message: dict[str, Any] = loads(entry.value)
    return message
