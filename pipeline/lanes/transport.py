"""Celery's way to the lanes: kombu's Redis transport, whose one poll also steps through lanes.

The only module on kombu's internals; kombu is pinned for it. A worker with ``-Q search`` consumes the queue ``search``,
which holds no messages: a poll of it is a step, which hands in finished turns and claims the next one. Other queues
of the same worker are served as kombu serves them. A step that finds nothing waits on the bell beside those queues.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from queue import Empty
from time import monotonic
from typing import Any, ClassVar, NamedTuple

from kombu import transport
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis.exceptions import NoScriptError, OutOfMemoryError

from pipeline.lanes import scripts
from pipeline.lanes.claim import Claim, Finished
from pipeline.lanes.held import HeldTurns
from pipeline.lanes.held_tasks import HeldTasks
from pipeline.lanes.request import turn_of
from pipeline.lanes.steps import step_arguments, step_of
from pipeline.lanes.task_messages import lanes_of, merchant_of, message_of, require_order
from pipeline.lanes.tested import require_tested

_LONGEST_WAIT = 1.0
_PLAIN_EVERY, _GLANCE = 0.25, 0.001


class TurnTag(NamedTuple):
    """The delivery tag of a turn, told from kombu's own by its type."""

    queue: str
    token: int


class LaneQoS(stock.QoS):  # type: ignore[misc]  # kombu has no types
    """Turns count against the prefetch limit; nothing of them is written to kombu's own acknowledgement keys."""

    def append(self, message: Any, delivery_tag: TurnTag | str) -> None:
        """A message was delivered."""
        if isinstance(delivery_tag, TurnTag):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: TurnTag | str) -> None:
        """A message is done with; the outcomes of a turn wait among the held turns."""
        if isinstance(delivery_tag, TurnTag):
            virtual.QoS.ack(self, delivery_tag)
            self.channel.consumers[delivery_tag.queue].acknowledged(delivery_tag.token)
            self.channel.hand_in(delivery_tag.queue)
        elif self._connected():
            super().ack(delivery_tag)

    def reject(self, delivery_tag: TurnTag | str, requeue: bool = False) -> None:
        """A message was not taken, or was put back: a turn goes back whole."""
        if isinstance(delivery_tag, TurnTag):
            virtual.QoS.ack(self, delivery_tag)
            self.channel.consumers[delivery_tag.queue].rejected(delivery_tag.token, requeue=requeue)
            self.channel.hand_in(delivery_tag.queue)
        elif self._connected():
            super().reject(delivery_tag, requeue=requeue)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Messages whose worker is gone go back to their queues, when Redis has room for it: lanes are drained before."""
        with contextlib.suppress(OutOfMemoryError):
            super().restore_visible(start, num, interval)

    def restore_unacked(self, client: Any = None) -> Any:
        """The channel ends: turns stay held by the process, other messages go back to their queues."""
        self._flush()
        for tag in [tag for tag in self._delivered if isinstance(tag, TurnTag)]:
            self._delivered.pop(tag, None)
        return super().restore_unacked(client) if self._connected() else None

    def _connected(self) -> bool:
        # After a loss of Redis Celery closes what it has taken apart already; kombu would fail there and the worker
        # with it. Messages left behind come back when their visibility timeout ends.
        connection = self.channel.connection
        return connection is not None and connection.client is not None


@dataclass(frozen=True, slots=True)
class _Stepping:
    """A step is on its way on the poll connection, carrying these outcomes."""

    queue: str
    finished: list[Finished]


class LaneChannel(stock.Channel):  # type: ignore[misc]  # kombu has no types
    """A channel on which a consumer's queue delivers turns."""

    QoS = LaneQoS
    consumers: ClassVar[dict[str, HeldTurns]] = {}

    def __init__(self, *args: Any, **options: Any) -> None:
        self._sent: _Stepping | str | None = None
        self._resting: dict[str, float] = {}
        self._plain_at = monotonic()
        super().__init__(*args, **options)

    # What Celery asks for

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> Any:
        """Begin to take turns, or messages."""
        if queue in self.consumers:
            self._resting.pop(queue, None)
            self.consumers[queue].join()
        return super().basic_consume(queue, *args, **options)

    def hand_in(self, queue: str) -> None:
        """Outcomes are waiting: the next step is near unless the poll waits for the bell or has ended."""
        self._resting.pop(queue, None)
        if self._sent == "bell" or queue not in self._active_queues:
            self.consumers[queue].flush()

    def close(self) -> None:
        """End the channel; a step whose answer nobody reads is repeated by the next one."""
        if isinstance(self._sent, _Stepping):
            self._in_poll = None
            self._abandon()
        super().close()

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        result = super()._basic_cancel(consumer_tag)
        if queue in self.consumers:
            self._leave(queue)
        return result

    def _leave(self, queue: str) -> None:
        held = self.consumers[queue]
        if isinstance(self._sent, _Stepping) and self._sent.queue == queue:
            with contextlib.suppress(Empty, *self.connection_errors):
                claim = self._read_step(self._sent)
                self._sent = self._in_poll = None
                if claim is not None:
                    held.give_back(claim.token)
        self._resting.pop(queue, None)
        held.leave()

    # What gets into a lane, and what must not

    def _put(self, queue: str, message: Any, **options: Any) -> Any:
        held = lanes_of(queue, self.consumers)
        if held is None:
            return super()._put(queue, message, **options)
        return held.send(merchant_of(queue), require_order(queue, message), dumps(message).encode())

    def _new_queue(self, queue: str, **options: Any) -> None:
        if queue not in self.consumers and lanes_of(queue, self.consumers) is None:
            super()._new_queue(queue, **options)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: Any, queue: str) -> None:
        if queue in self.consumers or lanes_of(queue, self.consumers) is None:
            with contextlib.suppress(OutOfMemoryError):  # workers must begin, or nothing drains it
                super()._queue_bind(exchange, routing_key, pattern, queue)

    def _size(self, queue: str) -> int:
        with contextlib.suppress(OutOfMemoryError):
            return 0 if queue in self.consumers else int(super()._size(queue))
        return 0

    # The poll

    def _brpop_start(self, timeout: float | None = None) -> None:
        lanes = [queue for queue in self.active_queues if queue in self.consumers]
        if not lanes:
            super()._brpop_start(timeout)
            return
        self._abandon()
        self._in_poll, self._brpop_sent_at = self.client.connection, monotonic()
        plain = self._plain_keys()
        if plain and monotonic() - self._plain_at > _PLAIN_EVERY:
            self._send_wait(lanes, plain, _GLANCE)
        elif (queue := self._next_to_step(lanes)) is not None:
            self._send_step(queue)
        else:
            self._send_wait(lanes, plain, min(self._resting.values()) - monotonic())

    def _next_to_step(self, lanes: list[str]) -> str | None:
        now = monotonic()
        for queue in self._queue_cycle.consume(len(self.active_queues)):
            if queue in lanes and (
                self._resting.get(queue, 0) <= now or self.consumers[queue].has_finished()
            ):
                self._queue_cycle.rotate(queue)
                return str(queue)
        return None

    def _plain_keys(self) -> list[str]:
        queues = self._queue_cycle.consume(len(self.active_queues))
        plain = [queue for queue in queues if queue not in self.consumers]
        keys = (self._q_for_pri(queue, step) for step in self.priority_steps for queue in plain)
        return [self.global_keyprefix + key for key in keys]

    def _send_step(self, queue: str) -> None:
        held = self.consumers[queue]
        self._sent = _Stepping(queue, held.take_finished())
        arguments = step_arguments(
            held.limits, self._sent.finished, claim=True, floor=held.highest, jitter=held.jitter()
        )
        self.client.connection.send_command(*scripts.command("step", held.store.namespace, *arguments))

    def _send_wait(self, lanes: list[str], plain: list[str], seconds: float) -> None:
        self._sent, self._plain_at = "bell", monotonic()
        bells = [self.consumers[queue].store.bell for queue in lanes]
        self.client.connection.send_command(
            "BRPOP", *plain, *bells, min(_LONGEST_WAIT, max(_GLANCE, seconds))
        )

    def _abandon(self) -> None:
        """Forget an answer that will not be read."""
        if isinstance(self._sent, _Stepping):
            self.consumers[self._sent.queue].put_back(self._sent.finished)
        self._sent = None

    def _brpop_read(self, **options: Any) -> Any:
        sent = self._sent
        if sent is None:
            return super()._brpop_read(**options)
        try:
            if isinstance(sent, _Stepping):
                return self._deliver_turn(sent.queue, self._read_step(sent))
            self._sent = None
            return self._deliver_plain(self._read_reply("BRPOP"))
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _read_reply(self, command: str) -> Any:
        try:
            return self.client.parse_response(self.client.connection, command)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise

    def _read_step(self, sent: _Stepping) -> Claim | None:
        held = self.consumers[sent.queue]
        try:
            reply = self._read_reply("EVALSHA")
        except NoScriptError:
            self._abandon()
            with self.conn_or_acquire() as client:
                client.script_load(scripts.text("step"))
            raise Empty from None
        self._sent = None
        step = step_of(reply)
        if step.wait:
            self._resting[sent.queue] = monotonic() + step.wait / 1000
        return held.arrived(step)

    def _deliver_turn(self, queue: str, claim: Claim | None) -> bool:
        if claim is None:
            raise Empty
        held = self.consumers[queue]
        payload = message_of(claim) if isinstance(held, HeldTasks) else turn_of(queue, claim, held)
        payload["properties"]["delivery_tag"] = TurnTag(queue, claim.token)
        self.connection._deliver(payload, queue)
        return True

    def _deliver_plain(self, reply: Any) -> bool:
        if not reply:
            raise Empty
        key, item = reply
        name = bytes_to_str(key).rsplit(self.sep, 1)[0]
        self._resting.clear()
        if not any(self.global_keyprefix + name == held.store.bell for held in self.consumers.values()):
            self._queue_cycle.rotate(name)
            self.connection._deliver(loads(bytes_to_str(item)), name)
        return True


class LaneTransport(stock.Transport):  # type: ignore[misc]  # kombu has no types
    """kombu's Redis transport with lanes."""

    Channel = LaneChannel


def install(consumers: Mapping[str, HeldTurns]) -> None:
    """Serve these consumers' queues as lanes in this process, for every ``redis://`` and ``rediss://`` broker.

    The schemes stay kombu's own because Flower knows no others. ConfigurationError when this kombu is not the tested one.
    """
    require_tested()
    LaneChannel.consumers = dict(consumers)
    name = f"{__name__}:{LaneTransport.__name__}"
    transport.TRANSPORT_ALIASES.update(redis=name, rediss=name)
    for scheme in ("redis", "rediss"):
        transport._transport_cache.pop(scheme, None)
