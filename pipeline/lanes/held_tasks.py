"""The Celery tasks of merchants' lanes that this process has in hand: each is one message, the head of one lane."""

from __future__ import annotations

from pipeline.consumer import Outcome
from pipeline.lanes.held import HeldTurns
from pipeline.lanes.turn import Finish

TASKS = "tasks"  # the queue of all lanes of tasks
UNKNOWN = "no worker that took it knows the task: see [tasks] include"
PUT_BACK = "the task was put back, or its process died"


class HeldTasks(HeldTurns):
    """Messages from claim to acknowledgement.

    Unlike a turn, a task is fenced by nothing when it writes. So one that has not begun goes back only when the pool has
    ended: before that it might begin here while another worker has it.
    """

    def send(self, merchant: str, message_id: str, message: bytes) -> None:
        """Put a message at the end of a merchant's lane; StoreFullError when Redis has no room."""
        self.store.send(merchant, message_id, message)

    def acknowledged(self, token: int) -> None:
        """Celery is done with the message: it leaves the lane."""
        with self._lock:
            held = self._held.get(token)
        if held is not None:
            (lane,) = held.claim.lanes
            self.finished(token, Finish((Outcome(lane.merchant, 1, "done"),)))

    def rejected(self, token: int, *, requeue: bool) -> None:
        """Celery rejects the message. What never began is not lost by it; what began and is not wanted again leaves."""
        with self._lock:
            held = self._held.get(token)
        if held is None:
            return
        if held.started and not requeue:
            self.acknowledged(token)
        elif held.started or not requeue:
            self.lost(token, PUT_BACK if requeue else UNKNOWN)
        else:
            self.give_back(token)

    def leave(self) -> None:
        """Claiming ends: what has finished is handed in at once."""
        self._leaving = True
        self.flush()

    def end(self) -> None:
        """The pool has ended: what it never began goes back."""
        super().leave()
